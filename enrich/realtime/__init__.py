"""From Kafka's topic to vectors, seconds after a log was produced."""
