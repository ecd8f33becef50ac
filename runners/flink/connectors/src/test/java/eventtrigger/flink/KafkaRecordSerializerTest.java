package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputDeserializer;
import org.apache.flink.core.memory.DataOutputSerializer;
import org.junit.jupiter.api.Test;

/** The methods that an unchained source would need; chained operators only pass records on. */
class KafkaRecordSerializerTest {

  @Test
  void recordComesBack() throws IOException {
    KafkaRecord record = new KafkaRecord("t", 3, 1L << 40, 1_700_000_000_000L, Records.utf8("u"), Records.utf8("{}"));
    KafkaRecord back = roundTrip(record);
    assertEquals("t", back.topic());
    assertEquals(3, back.partition());
    assertEquals(1L << 40, back.offset());
    assertEquals(1_700_000_000_000L, back.timestampMs());
    assertArrayEquals(record.key(), back.key());
    assertArrayEquals(record.value(), back.value());
  }

  @Test
  void missingKeyAndTombstoneComeBack() throws IOException {
    KafkaRecord back = roundTrip(new KafkaRecord("t", 0, 0, 0, null, null));
    assertNull(back.key());
    assertNull(back.value());
  }

  @Test
  void copyIsTheRecordItself() {
    KafkaRecord record = Records.event(0, "u");
    assertSame(record, KafkaRecordSerializer.INSTANCE.copy(record));
  }

  private static KafkaRecord roundTrip(KafkaRecord record) throws IOException {
    DataOutputSerializer out = new DataOutputSerializer(64);
    KafkaRecordSerializer.INSTANCE.serialize(record, out);
    return KafkaRecordSerializer.INSTANCE.deserialize(new DataInputDeserializer(out.getSharedBuffer()));
  }
}
