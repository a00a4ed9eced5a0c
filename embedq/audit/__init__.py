"""Whether a collection is what it should be."""
