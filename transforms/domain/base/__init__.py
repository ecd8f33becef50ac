"""What every subject of the domain builds on: strict models, durations, the calendar, YAML with positions."""
