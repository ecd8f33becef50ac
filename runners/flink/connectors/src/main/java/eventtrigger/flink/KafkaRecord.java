package eventtrigger.flink;

/** A record between the Kafka source and the micro-batch operator. Immutable: nothing writes to the arrays. */
record KafkaRecord(String topic, int partition, long offset, long timestampMs, byte[] key, byte[] value) {}
