"""The user API over HTTP."""
