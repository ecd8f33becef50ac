"""The artifacts of a cluster: archives of Flink, the Python runtime and ZooKeeper, and their checksums."""
