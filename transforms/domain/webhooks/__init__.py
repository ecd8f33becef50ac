"""Webhooks: where they go, how they are signed, and one attempt to deliver one. No Beam, no state."""
