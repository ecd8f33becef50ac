"""The jars beside this file belong into lib/ of every JobManager and TaskManager."""
