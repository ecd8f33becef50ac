"""Metrics: their names and how a worker gathers them."""
