"""Tests that take minutes, each with a target of its own."""
