"""Dead letters: shown, requeued, purged."""
