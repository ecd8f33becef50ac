"""Events, the Kafka records and micro-batches that carry them, and dead letters."""
