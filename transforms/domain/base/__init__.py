"""Building blocks of all subjects: errors, strict models, durations, the calendar, due index, YAML with lines."""
