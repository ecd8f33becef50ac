"""The door that Beam's staging looks for; everything else is in pyproject.toml."""

from setuptools import setup

setup()
