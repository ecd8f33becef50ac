"""The rule language a second time, written from docs/rules.md alone, and random events to compare the job with it."""
