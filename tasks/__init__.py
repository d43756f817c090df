"""Celery tasks: thin. Each translates a message into one call, and an exception into a retry."""
