"""What takes long of `make test-dist`."""
