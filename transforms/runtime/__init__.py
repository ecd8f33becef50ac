"""What one worker process holds together: pools, shards while they are open, timers, metrics, its log."""
