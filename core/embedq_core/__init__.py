"""The vocabulary that every other room speaks: items, digests, vectors, errors, settings. No I/O."""
