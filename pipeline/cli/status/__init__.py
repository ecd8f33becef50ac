"""The ``status`` command: a job's status in the terminal, or as JSON."""
