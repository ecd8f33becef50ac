"""A running job: its status, what it has saved, its users and its dead letters."""
