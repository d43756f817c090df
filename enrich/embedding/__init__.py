"""Texts to vectors: what an endpoint takes, how it answers, and what its refusals mean."""
