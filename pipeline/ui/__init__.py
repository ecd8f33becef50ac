"""The web page of ``python -m pipeline ui``: server-rendered, without scripts."""
