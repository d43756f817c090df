"""The Celery side of a worker: what its main process does beside its tasks."""
