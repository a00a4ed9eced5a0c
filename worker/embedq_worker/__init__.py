"""The worker: chunks from the queue become batches, vectors, rows; supervised, so that nothing is lost."""

from embedq_worker.service import ServiceOptions, serve

__all__ = ["ServiceOptions", "serve"]
