"""What `models` shows."""
