"""The HTTP service: vectors, search and statistics for other programs."""
