"""A run: its survey, pages and chunks, from the tick to the end."""
