"""What `status` shows: what is known, read in one look, and how it is shown."""
