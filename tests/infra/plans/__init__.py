"""A plan for a change of each input; only in `make test-terraform`, because it takes minutes."""
