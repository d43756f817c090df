"""From documents to outcomes: what is done with the logs that a run has found."""
