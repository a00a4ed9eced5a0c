"""What `similar` does, for one query and for many; and the index for it."""
