"""The launcher: options, the graph, commands. The only code that reads flags and the environment."""
