"""Benchmarks. What other packages log while they are imported would be printed between the tables."""

from pipeline.console import quiet_logging

quiet_logging()
