"""Collections in files: JSON lines, Parquet, numpy; written from a snapshot, and read back bit for bit."""
