"""The container image: what `make image` puts into it, and a Containerfile and a compose file of the same."""
