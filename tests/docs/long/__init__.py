"""What docs/ show and takes long: `make test-docs` runs it, `make test` does not."""
