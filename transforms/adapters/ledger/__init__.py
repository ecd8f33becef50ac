"""The ledger of deliveries in Kafka: a thread that claims, reads and appends for the shards of a worker."""
