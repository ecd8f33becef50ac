"""Launching the job: options, checks, the graph and its runners."""
