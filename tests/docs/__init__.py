"""Tests of what README and docs/ show: every block, link and name; what is quick is really run."""
