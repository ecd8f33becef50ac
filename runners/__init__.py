"""What only a runner needs."""
