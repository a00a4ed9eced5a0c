"""Another model for a collection: begun, watched, undone."""
