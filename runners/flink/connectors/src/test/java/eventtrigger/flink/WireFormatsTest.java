package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.junit.jupiter.api.Named;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** The fixed vectors of wire_vectors.json, which the Python tests read as well, and cases without a vector. */
class WireFormatsTest {
  private static final HexFormat HEX = HexFormat.of();

  @ParameterizedTest
  @MethodSource("microBatches")
  void microBatchIsWrittenAsItsVector(JsonNode vector) {
    ReadSettings.Kind kind = ReadSettings.Kind.values()[vector.get("kind").intValue()];
    PendingBatches pending =
        new PendingBatches(Records.settings(kind, vector.get("topic").textValue(), 1, 5, 1000, 1 << 20));
    vector.get("records").forEach(record -> pending.add(record(vector.get("topic").textValue(), record)));
    List<String> batches = new ArrayList<>();
    pending.drainTo((key, batch, timestampMs) -> batches.add(HEX.formatHex(batch)));
    assertEquals(List.of(vector.get("hex").textValue()), batches);
  }

  @ParameterizedTest
  @MethodSource("producedRecords")
  void producedRecordIsReadAsItsVector(JsonNode vector) {
    ProducerRecord<byte[], byte[]> record =
        new ProducedRecordSerializer("default").decode(HEX.parseHex(vector.get("hex").textValue()));
    assertEquals(vector.get("topic").isNull() ? "default" : vector.get("topic").textValue(), record.topic());
    assertArrayEquals(bytes(vector.get("key_hex")), record.key());
    assertArrayEquals(bytes(vector.get("value_hex")), record.value());
    List<String> headers = new ArrayList<>();
    record.headers().forEach(header -> headers.add(header.key() + "=" + HEX.formatHex(header.value())));
    List<String> expected = new ArrayList<>();
    vector.get("headers").forEach(pair -> expected.add(pair.get(0).textValue() + "=" + pair.get(1).textValue()));
    assertEquals(expected, headers);
  }

  @ParameterizedTest
  @MethodSource("shardKeys")
  void shardKeyIsAsItsVector(JsonNode vector) {
    ShardKeys keys = new ShardKeys(vector.get("user_shards").intValue(), vector.get("max_parallelism").intValue());
    int shard = keys.shardOf(bytes(vector.get("user_hex")));
    assertEquals(vector.get("shard").intValue(), shard);
    assertEquals(vector.get("key_hex").textValue(), HEX.formatHex(keys.keyOf(shard)));
  }

  @Test
  void batchOfManyLongRecordsComesBack() {
    PendingBatches pending = new PendingBatches(Records.events(1, 5, 100_000, 1 << 30));
    byte[] value = new byte[70_000];
    pending.add(new KafkaRecord("events", 1, 0, 1, new byte[300], value));
    for (int offset = 1; offset < 70_000; offset++) {
      pending.add(Records.event(offset, "u"));
    }
    pending.drainTo(
        (key, batch, timestampMs) -> {
          DecodedBatch decoded = DecodedBatch.of(batch);
          assertEquals(70_000, decoded.records().size());
          assertArrayEquals(value, decoded.records().get(0).value());
          assertEquals(69_999, decoded.records().get(69_999).offset());
        });
  }

  @ParameterizedTest
  @MethodSource("brokenProducedRecords")
  void brokenProducedRecordIsRefused(String hex, String message) {
    Exception e =
        assertThrows(
            RuntimeException.class, () -> new ProducedRecordSerializer("default").decode(HEX.parseHex(hex)));
    assertTrue(String.valueOf(e.getMessage()).contains(message), e.toString());
  }

  static Stream<Arguments> brokenProducedRecords() {
    return Stream.of(
        Arguments.of("9502c0c0c40090", "version 2"),
        Arguments.of("9401c0c0c400", "4 fields"),
        Arguments.of("9501c0c0c0", "Nil"));
  }

  static Stream<Named<JsonNode>> microBatches() throws IOException {
    return vectors("micro_batches");
  }

  static Stream<Named<JsonNode>> producedRecords() throws IOException {
    return vectors("produced_records");
  }

  static Stream<Named<JsonNode>> shardKeys() throws IOException {
    return vectors("shard_keys");
  }

  private static Stream<Named<JsonNode>> vectors(String name) throws IOException {
    try (InputStream json = WireFormatsTest.class.getResourceAsStream("/wire_vectors.json")) {
      JsonNode vectors = new ObjectMapper().readTree(json).get(name);
      return StreamSupport.stream(vectors.spliterator(), false)
          .map(vector -> Named.of(vector.path("name").asText(vector.toString()), vector));
    }
  }

  private static KafkaRecord record(String topic, JsonNode record) {
    return new KafkaRecord(
        topic,
        record.get("partition").intValue(),
        record.get("offset").longValue(),
        record.get("timestamp_ms").longValue(),
        bytes(record.get("key_hex")),
        bytes(record.get("value_hex")));
  }

  private static byte[] bytes(JsonNode hex) {
    return hex.isNull() ? null : HEX.parseHex(hex.textValue());
  }
}
