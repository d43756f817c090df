"""Flower's pages in every state, with real data behind it, in a real browser."""
