package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.util.List;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SettingsTest {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final String READ =
      """
      {"topic": "events", "rules_topic": null, "consumer_config": {"bootstrap.servers": "h:1", "x": "y"}, "group_id": "g",
       "starting_offsets": "committed", "starting_timestamp_ms": null, "user_shards": 16, "max_parallelism": 128,
       "user_key": "record", "linger_ms": 5, "max_batch_records": 10, "max_batch_bytes": 1000,
       "watermark_out_of_orderness_ms": 0, "watermark_idleness_ms": 1,
       "partition_discovery_ms": 30000, "skip_dead_partitions": [3, 7]}""";
  private static final String WRITE =
      """
      {"topic": "out", "delivery_guarantee": "AT_LEAST_ONCE", "transactional_id_prefix": null,
       "producer_config": {"bootstrap.servers": "h:1"}}""";

  @Test
  void readSettingsAreTakenAsTheyAre() throws IOException {
    ReadSettings settings = read(ReadSettings.Kind.EVENTS, READ, "topic", "\"events\"");
    assertEquals("events", settings.topic());
    assertEquals("y", settings.consumerConfig().get("x"));
    assertEquals(ReadSettings.StartingOffsets.COMMITTED, settings.startingOffsets());
    assertEquals(1, settings.idlenessMs());
    assertEquals(List.of(3, 7), settings.skippedPartitions());
  }

  @Test
  void onlyControlMayHaveNoTopic() throws IOException {
    assertNull(read(ReadSettings.Kind.CONTROL, READ, "topic", "null").topic());
    assertRefused("ReadEvents: setting 'topic' is null, allowed: a string, not empty", READ, "topic", "null");
  }

  @Test
  void controlReadsTheTopicsItIsGiven() throws IOException {
    byte[] both = with(with(READ, "topic", "\"c\""), "rules_topic", "\"r\"");
    assertEquals(List.of("c", "r"), control(both).topics());
    assertEquals(List.of("r"), control(with(both, "topic", "null")).topics());
    assertEquals(List.of("c"), control(with(both, "rules_topic", "null")).topics());
    assertEquals(List.of(), control(with(with(both, "topic", "null"), "rules_topic", "null")).topics());
  }

  @Test
  void rulesTopicThatCannotBeIsRefused() throws IOException {
    byte[] payload = with(READ, "rules_topic", "\"events\"");
    assertContains(
        "setting 'rules_topic' is events, allowed: another topic than 'topic'",
        assertThrows(SettingException.class, () -> control(payload)));
    byte[] unsharded = with(with(READ, "rules_topic", "\"r\""), "user_shards", "0");
    assertContains(
        "setting 'rules_topic' is r, allowed: null, as user_shards is 0",
        assertThrows(SettingException.class, () -> control(unsharded)));
  }

  private static ReadSettings control(byte[] payload) {
    return ReadSettings.parse("ReadControl", ReadSettings.Kind.CONTROL, payload);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          topic                         | 7              | setting 'topic' is 7, allowed: a string, not empty
          topic                         | ""             | setting 'topic' is "", allowed: a string, not empty
          rules_topic                   | 7              | setting 'rules_topic' is 7, allowed: a string or null, not empty
          rules_topic                   | "rules"        | setting 'rules_topic' is rules, allowed: null, as only read_control reads rule sets
          consumer_config               | []             | setting 'consumer_config' is [], allowed: an object of strings
          consumer_config               | {}             | setting 'consumer_config.bootstrap.servers' is missing
          consumer_config               | {"bootstrap.servers": "h:1", "max.poll.records": "many"} | setting 'consumer_config.max.poll.records' is not valid, allowed: INT
          consumer_config               | {"a": 1}       | setting 'consumer_config.a' is of type number, allowed: a string
          group_id                      | null           | setting 'group_id' is null
          starting_offsets              | "newest"       | 'starting_offsets' is "newest", allowed: committed, earliest, latest, timestamp
          starting_offsets              | "timestamp"    | setting 'starting_timestamp_ms' is null, allowed: an integer
          starting_timestamp_ms         | 5              | setting 'starting_timestamp_ms' is 5, allowed: null
          user_shards                   | -1             | setting 'user_shards' is -1, allowed: an integer from 0 to 32768
          user_shards                   | 1.0            | setting 'user_shards' is 1.0
          user_shards                   | true           | setting 'user_shards' is true
          max_parallelism               | 0              | setting 'max_parallelism' is 0, allowed: an integer from 1 to 32768
          max_parallelism               | 32769          | setting 'max_parallelism' is 32769
          user_key                      | "body"         | setting 'user_key' is "body", allowed: record, field
          linger_ms                     | "5"            | setting 'linger_ms' is "5", allowed: an integer from 0
          max_batch_records             | 0              | setting 'max_batch_records' is 0, allowed: an integer from 1
          max_batch_bytes               | 99999999999999 | setting 'max_batch_bytes' is 99999999999999
          watermark_out_of_orderness_ms | -5             | setting 'watermark_out_of_orderness_ms' is -5
          watermark_idleness_ms         | 0              | setting 'watermark_idleness_ms' is 0
          partition_discovery_ms        | 0              | setting 'partition_discovery_ms' is 0, allowed: an integer from 1
          skip_dead_partitions          | 3              | setting 'skip_dead_partitions' is 3, allowed: a list of integers from 0
          skip_dead_partitions          | [-1]           | setting 'skip_dead_partitions' is [-1]
          skip_dead_partitions          | ["3"]          | setting 'skip_dead_partitions' is ["3"]
          linger                        | 5              | setting 'linger' is unknown, allowed: the settings topic
          """)
  void badReadSettingIsNamed(String name, String value, String message) {
    assertRefused(message, READ, name, value);
  }

  @Test
  void everyMissingReadSettingIsNamed() throws IOException {
    JSON.readTree(READ)
        .fieldNames()
        .forEachRemaining(name -> assertRefused("setting '" + name + "' is missing", READ, name, null));
  }

  @Test
  void payloadMustBeAnObject() {
    assertPayloadRefused("setting 'payload' is not JSON", "{");
    assertPayloadRefused("setting 'payload' is of type array, allowed: a JSON object", "[]");
  }

  @Test
  void secretsStayOutOfMessages() {
    SettingException e =
        assertThrows(
            SettingException.class,
            () -> read(ReadSettings.Kind.EVENTS, READ, "consumer_config", "{\"ssl.key.password\": [\"hush\"]}"));
    assertFalse(e.getMessage().contains("hush"), e.getMessage());
  }

  @Test
  void writeSettingsAreTakenAsTheyAre() throws IOException {
    WriteSettings settings = write("topic", "\"out\"");
    assertEquals(DeliveryGuarantee.AT_LEAST_ONCE, settings.deliveryGuarantee());
    assertNull(settings.transactionalIdPrefix());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          topic                   | null           | setting 'topic' is null
          delivery_guarantee      | "NONE"         | 'delivery_guarantee' is "NONE", allowed: AT_LEAST_ONCE, EXACTLY_ONCE
          delivery_guarantee      | "EXACTLY_ONCE" | setting 'transactional_id_prefix' is null, allowed: a string
          transactional_id_prefix | "p"            | setting 'transactional_id_prefix' is p, allowed: null
          producer_config         | {}             | setting 'producer_config.bootstrap.servers' is missing
          acks                    | "all"          | setting 'acks' is unknown
          """)
  void badWriteSettingIsNamed(String name, String value, String message) {
    SettingException e = assertThrows(SettingException.class, () -> write(name, value));
    assertContains(message, e);
  }

  private static void assertRefused(String message, String payload, String name, String value) {
    SettingException e =
        assertThrows(SettingException.class, () -> read(ReadSettings.Kind.EVENTS, payload, name, value));
    assertContains(message, e);
  }

  private static void assertPayloadRefused(String message, String payload) {
    SettingException e =
        assertThrows(
            SettingException.class,
            () -> ReadSettings.parse("ReadEvents", ReadSettings.Kind.EVENTS, Records.utf8(payload)));
    assertContains(message, e);
  }

  private static void assertContains(String message, SettingException e) {
    assertTrue(e.getMessage().contains(message), e.getMessage());
  }

  private static ReadSettings read(ReadSettings.Kind kind, String payload, String name, String value)
      throws IOException {
    return ReadSettings.parse("ReadEvents", kind, with(payload, name, value));
  }

  private static WriteSettings write(String name, String value) throws IOException {
    return WriteSettings.parse("WriteActions", with(WRITE, name, value));
  }

  /** The payload with one setting replaced, or removed if the value is null. */
  private static byte[] with(String payload, String name, String value) throws IOException {
    return with(Records.utf8(payload), name, value);
  }

  private static byte[] with(byte[] payload, String name, String value) throws IOException {
    ObjectNode settings = (ObjectNode) JSON.readTree(payload);
    if (value == null) {
      settings.remove(name);
    } else {
      settings.set(name, JSON.readTree(value));
    }
    return JSON.writeValueAsBytes(settings);
  }
}
