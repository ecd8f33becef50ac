"""Each lie about a job's health, on real Kafka and Flink: ``make test-health``."""
