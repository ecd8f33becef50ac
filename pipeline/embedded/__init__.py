"""What the embedded default brings along: a stream of events, a user API and sample rules."""
