"""What `make dist` builds, in environments of its own, without this checkout."""
