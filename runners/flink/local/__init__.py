"""Flink, Kafka and monitoring as processes on this machine, for the demo and tests."""
