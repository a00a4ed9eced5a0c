"""The worker: chunks from the queue become batches, vectors, rows; supervised, so that nothing is lost."""
