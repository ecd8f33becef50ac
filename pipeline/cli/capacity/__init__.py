"""The ``capacity`` command: a sizing model from measured figures."""
