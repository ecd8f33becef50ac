"""The state machine of a user shard: what one step does with an input, and the journal it is stored in."""
