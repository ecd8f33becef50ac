"""The peers' programs. Each runs in the peer's own environment and imports nothing of ours but what lies beside it."""
