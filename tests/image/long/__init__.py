"""`make test-image`: the image in containers."""
