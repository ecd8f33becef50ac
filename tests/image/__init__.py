"""The container image: its scripts, its bill of materials, the Containerfile and the compose file."""
