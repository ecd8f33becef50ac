"""The web page of ``event-trigger ui``: server-rendered, without scripts."""
