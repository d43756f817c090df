"""Settings that have a form of their own: how it is read, and what is wrong with it."""
