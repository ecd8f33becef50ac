package eventtrigger.flink;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.List;
import java.util.Map;

/** Builds records and settings for tests. */
final class Records {
  private Records() {}

  static KafkaRecord event(long offset, String user) {
    return event(offset, user, 1000 + offset);
  }

  static KafkaRecord event(long offset, String user, long timestampMs) {
    return new KafkaRecord("events", 0, offset, timestampMs, utf8(user), utf8("{}"));
  }

  static KafkaRecord withBody(String body) {
    return control("control", 0, body);
  }

  static KafkaRecord control(String topic, long offset, String body) {
    return new KafkaRecord(topic, 0, offset, 0, null, utf8(body));
  }

  static byte[] utf8(String text) {
    return text == null ? null : text.getBytes(UTF_8);
  }

  static ReadSettings events(int userShards, int lingerMs, int maxRecords, int maxBytes) {
    return settings(ReadSettings.Kind.EVENTS, "events", userShards, lingerMs, maxRecords, maxBytes);
  }

  static ReadSettings settings(
      ReadSettings.Kind kind, String topic, int userShards, int lingerMs, int maxRecords, int maxBytes) {
    return settings(kind, topic, userShards, lingerMs, maxRecords, maxBytes, 10_000, List.of());
  }

  static ReadSettings settings(int idlenessMs, List<Integer> skippedPartitions) {
    return settings(ReadSettings.Kind.EVENTS, "events", 1, 5, 1000, 1 << 20, idlenessMs, skippedPartitions);
  }

  private static ReadSettings settings(
      ReadSettings.Kind kind,
      String topic,
      int userShards,
      int lingerMs,
      int maxRecords,
      int maxBytes,
      int idlenessMs,
      List<Integer> skippedPartitions) {
    return new ReadSettings(
        kind,
        topic,
        null,
        Map.of("bootstrap.servers", "localhost:9092"),
        "group",
        ReadSettings.StartingOffsets.COMMITTED,
        null,
        userShards,
        128,
        ReadSettings.UserKey.RECORD,
        lingerMs,
        maxRecords,
        maxBytes,
        5000,
        idlenessMs,
        30_000,
        skippedPartitions);
  }
}
