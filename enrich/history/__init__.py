"""History that outlives Redis: each run's record in OpenSearch, written by whoever closes the run,
and read together with what Redis knows."""
