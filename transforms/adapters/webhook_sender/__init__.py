"""Delivery attempts of webhooks: one lane a destination, each with its own queue and limits."""
