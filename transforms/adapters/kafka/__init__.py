"""Kafka without Flink: reading topics up to the ends that they have now."""
