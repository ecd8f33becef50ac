"""The ``doctor`` command: checks of what a launch depends on."""
