package eventtrigger.flink;

import java.io.Serializable;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Stream;
import org.apache.kafka.clients.consumer.ConsumerConfig;

/** How a topic is read: the payload of the read URNs (see the README of this module). */
record ReadSettings(
    Kind kind,
    String topic,
    String rulesTopic,
    Map<String, String> consumerConfig,
    String groupId,
    StartingOffsets startingOffsets,
    Long startingTimestampMs,
    int userShards,
    int maxParallelism,
    UserKey userKey,
    int lingerMs,
    int maxBatchRecords,
    int maxBatchBytes,
    int outOfOrdernessMs,
    int idlenessMs,
    int partitionDiscoveryMs,
    List<Integer> skippedPartitions)
    implements Serializable {

  static final int MAX_KEY_GROUPS = 32768;
  // A batch is one byte array: leave room for a last record above the limit.
  static final int MAX_BATCH_BYTES = 1 << 30;

  /** The content of a topic; the code is the kind of a micro-batch on the wire. */
  enum Kind {
    EVENTS(0),
    CONTROL(1);

    final int code;

    Kind(int code) {
      this.code = code;
    }
  }

  /** Where to start without Flink state. */
  enum StartingOffsets {
    COMMITTED,
    EARLIEST,
    LATEST,
    TIMESTAMP
  }

  /** Where the user of an event is found: in the record's key, or in the body's user_id. */
  enum UserKey {
    RECORD,
    FIELD
  }

  static ReadSettings parse(String transform, Kind kind, byte[] payload) {
    SettingsReader settings = new SettingsReader(transform, payload);
    String topic = kind == Kind.CONTROL ? settings.stringOrNull("topic") : settings.string("topic");
    String rulesTopic = settings.stringOrNull("rules_topic");
    ReadSettings parsed =
        new ReadSettings(
            kind,
            topic,
            rulesTopic,
            settings.kafkaProperties("consumer_config", ConsumerConfig.configDef()),
            settings.string("group_id"),
            settings.oneOf("starting_offsets", byLowerCaseName(StartingOffsets.values())),
            settings.longOrNull("starting_timestamp_ms", 0),
            settings.integer("user_shards", 0, MAX_KEY_GROUPS),
            settings.integer("max_parallelism", 1, MAX_KEY_GROUPS),
            settings.oneOf("user_key", byLowerCaseName(UserKey.values())),
            settings.integer("linger_ms", 0, Integer.MAX_VALUE),
            settings.integer("max_batch_records", 1, Integer.MAX_VALUE),
            settings.integer("max_batch_bytes", 1, MAX_BATCH_BYTES),
            settings.integer("watermark_out_of_orderness_ms", 0, Integer.MAX_VALUE),
            settings.integer("watermark_idleness_ms", 1, Integer.MAX_VALUE),
            settings.integer("partition_discovery_ms", 1, Integer.MAX_VALUE),
            settings.integers("skip_dead_partitions", 0));
    settings.refuseOthers();
    parsed.checkRulesTopic(settings);
    parsed.checkStartingTimestamp(settings);
    return parsed;
  }

  /** The topics to read; none for the idle source. */
  List<String> topics() {
    return Stream.of(topic, rulesTopic).filter(Objects::nonNull).toList();
  }

  private void checkRulesTopic(SettingsReader settings) {
    if (rulesTopic != null && kind != Kind.CONTROL) {
      throw settings.refuse("rules_topic", rulesTopic, "null, as only read_control reads rule sets");
    }
    if (rulesTopic != null && userShards == 0) {
      throw settings.refuse("rules_topic", rulesTopic, "null, as user_shards is 0 and a set goes to every shard");
    }
    if (rulesTopic != null && rulesTopic.equals(topic)) {
      throw settings.refuse("rules_topic", rulesTopic, "another topic than 'topic'");
    }
  }

  private void checkStartingTimestamp(SettingsReader settings) {
    boolean isNeeded = startingOffsets == StartingOffsets.TIMESTAMP;
    if (isNeeded && startingTimestampMs == null) {
      throw settings.refuse("starting_timestamp_ms", null, "an integer, as starting_offsets is timestamp");
    }
    if (!isNeeded && startingTimestampMs != null) {
      throw settings.refuse(
          "starting_timestamp_ms", startingTimestampMs, "null, as starting_offsets is not timestamp");
    }
  }

  private static <E extends Enum<E>> Map<String, E> byLowerCaseName(E[] values) {
    Map<String, E> byName = new LinkedHashMap<>();
    for (E value : values) {
      byName.put(value.name().toLowerCase(Locale.ROOT), value);
    }
    return byName;
  }
}
