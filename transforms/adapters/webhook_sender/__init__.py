"""Sends webhooks: each destination has a lane of its own, with a queue, threads and limits."""
