"""Webhooks without I/O: destinations, URL policy, signatures, queues and retries."""
