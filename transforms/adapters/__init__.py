"""All input and output of a worker: HTTP, Lua, secrets, telemetry."""
