"""Rules: what one is, files and published sets of them, their filters, state and actions."""
