"""Kafka topics as the launcher and the commands read and write them."""
