"""Plans of changes, with the mocked provider and with moto; only in `make test-terraform`: they take minutes."""
