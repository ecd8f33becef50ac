package eventtrigger.flink;

/** A record as the Kafka source hands it to the micro-batch operator. Immutable: the arrays are never written to. */
record KafkaRecord(String topic, int partition, long offset, long timestampMs, byte[] key, byte[] value) {}
