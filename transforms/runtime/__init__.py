"""The runtime of one worker process: its resources, and its shards with their timers, metrics and outputs."""
