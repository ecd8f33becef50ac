"""HTTP calls of a worker, with their deadlines, errors and breaker."""
