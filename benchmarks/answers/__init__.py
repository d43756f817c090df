"""Questions in other words than the logs': what share of them an embedding model answers."""
