package eventtrigger.flink;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class PendingBatchesTest {

  @Test
  void recordsOfAUserShareAKeyAndKeepTheirOrder() {
    PendingBatches pending = new PendingBatches(Records.events(16, 5, 1000, 1 << 20));
    for (int offset = 0; offset < 300; offset++) {
      pending.add(Records.event(offset, "user-" + offset % 50));
    }
    ShardKeys keys = new ShardKeys(16, 128);
    Map<ByteBuffer, DecodedBatch> batches = drain(pending);
    assertEquals(300, batches.values().stream().mapToInt(batch -> batch.records().size()).sum());
    batches.forEach(
        (key, batch) -> {
          assertEquals(batch.offsets().stream().sorted().toList(), batch.offsets());
          batch
              .records()
              .forEach(record -> assertEquals(ByteBuffer.wrap(keys.keyOf(keys.shardOf(record.key()))), key));
        });
  }

  @Test
  void withoutShardsEveryUserIsAKey() {
    PendingBatches pending = new PendingBatches(Records.events(0, 5, 1000, 1 << 20));
    pending.add(Records.event(0, "a"));
    pending.add(Records.event(1, "b"));
    pending.add(Records.event(2, "a"));
    pending.add(Records.event(3, null));
    Map<ByteBuffer, DecodedBatch> batches = drain(pending);
    assertEquals(List.of("a", "b", ""), batches.keySet().stream().map(key -> new String(key.array(), UTF_8)).toList());
    assertEquals(List.of(0L, 2L), batches.get(ByteBuffer.wrap(Records.utf8("a"))).offsets());
  }

  @Test
  void ruleSetGoesToEveryShardAndForgetToOne() {
    PendingBatches pending =
        new PendingBatches(Records.settings(ReadSettings.Kind.CONTROL, "control", 16, 5, 1000, 1 << 20));
    pending.add(Records.withBody("{\"rules\": {}}"));
    assertEquals(16, drain(pending).size());
    pending.add(Records.withBody("{\"forget\": \"u\"}"));
    assertEquals(1, drain(pending).size());
  }

  @Test
  void ruleSetWithoutShardsGoesToTheEmptyUser() {
    PendingBatches pending =
        new PendingBatches(Records.settings(ReadSettings.Kind.CONTROL, "control", 0, 5, 1000, 1 << 20));
    pending.add(Records.withBody("{\"rules\": {}}"));
    assertEquals(List.of(ByteBuffer.wrap(RecordUsers.NO_USER)), List.copyOf(drain(pending).keySet()));
  }

  @Test
  void batchHasRecordsOfOneTopic() {
    PendingBatches pending =
        new PendingBatches(Records.settings(ReadSettings.Kind.CONTROL, "control", 2, 5, 1000, 1 << 20));
    KafkaRecord forget = Records.control("control", 0, "{\"forget\": \"u\"}");
    KafkaRecord rules = Records.control("rules", 0, "{\"rules\": {}}");
    assertTrue(pending.accepts(rules));
    pending.add(rules);
    assertTrue(pending.accepts(rules));
    assertFalse(pending.accepts(forget));
    assertThrows(IllegalArgumentException.class, () -> pending.add(forget));
    assertEquals(List.of("rules", "rules"), topics(pending));
    assertTrue(pending.accepts(forget));
    pending.add(forget);
    assertEquals(List.of("control"), topics(pending));
  }

  private static List<String> topics(PendingBatches pending) {
    return drain(pending).values().stream().map(DecodedBatch::topic).toList();
  }

  @Test
  void timestampIsTheEarliestOfTheKey() {
    PendingBatches pending = new PendingBatches(Records.events(1, 5, 1000, 1 << 20));
    pending.add(Records.event(0, "a", 30));
    pending.add(Records.event(1, "a", 10));
    pending.add(Records.event(2, "a", 20));
    pending.drainTo((key, batch, timestampMs) -> assertEquals(10, timestampMs));
    pending.add(Records.event(3, "a", 40));
    pending.drainTo((key, batch, timestampMs) -> assertEquals(40, timestampMs));
  }

  @Test
  void fullByRecordsOrBytesOverAllShards() {
    PendingBatches byRecords = new PendingBatches(Records.events(16, 5, 2, 1 << 20));
    byRecords.add(Records.event(0, "a"));
    assertFalse(byRecords.isFull());
    byRecords.add(Records.event(1, "b"));
    assertTrue(byRecords.isFull());
    drain(byRecords);
    assertFalse(byRecords.isFull());
    assertTrue(byRecords.isEmpty());

    PendingBatches byBytes = new PendingBatches(Records.events(16, 5, 1000, 20));
    byBytes.add(Records.event(0, "a"));
    assertFalse(byBytes.isFull());
    byBytes.add(Records.event(1, "b"));
    assertTrue(byBytes.isFull());
  }

  private static Map<ByteBuffer, DecodedBatch> drain(PendingBatches pending) {
    Map<ByteBuffer, DecodedBatch> batches = new LinkedHashMap<>();
    pending.drainTo(
        (key, batch, timestampMs) -> batches.put(ByteBuffer.wrap(key.clone()), DecodedBatch.of(batch)));
    return batches;
  }
}
