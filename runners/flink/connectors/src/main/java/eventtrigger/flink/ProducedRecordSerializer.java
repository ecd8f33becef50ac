package eventtrigger.flink;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessageUnpacker;

/** Decodes produced records, {@code [1, topic, key, value, [[header name, header value]…]]}, to Kafka records. */
final class ProducedRecordSerializer implements KafkaRecordSerializationSchema<WindowedValue<byte[]>> {
  private static final int VERSION = 1;
  private static final int FIELDS = 5;

  private final String defaultTopic;

  ProducedRecordSerializer(String defaultTopic) {
    this.defaultTopic = defaultTopic;
  }

  @Override
  public ProducerRecord<byte[], byte[]> serialize(WindowedValue<byte[]> element, KafkaSinkContext context, Long time) {
    return decode(element.getValue());
  }

  ProducerRecord<byte[], byte[]> decode(byte[] encoded) {
    try (MessageUnpacker record = MessagePack.newDefaultUnpacker(encoded)) {
      int fields = record.unpackArrayHeader();
      int version = record.unpackInt();
      if (version != VERSION || fields != FIELDS) {
        throw new IllegalArgumentException(
            String.format(
                "produced record of version %d with %d fields, this sink reads version %d with %d: Python and"
                    + " connectors do not match",
                version, fields, VERSION, FIELDS));
      }
      String topic = record.tryUnpackNil() ? defaultTopic : record.unpackString();
      byte[] key = record.tryUnpackNil() ? null : readBytes(record);
      byte[] value = readBytes(record);
      return new ProducerRecord<>(topic, null, null, key, value, readHeaders(record));
    } catch (IOException e) {
      throw new IllegalArgumentException("not a produced record: " + e.getMessage(), e);
    }
  }

  private static byte[] readBytes(MessageUnpacker record) throws IOException {
    return record.readPayload(record.unpackBinaryHeader());
  }

  private static List<Header> readHeaders(MessageUnpacker record) throws IOException {
    int count = record.unpackArrayHeader();
    List<Header> headers = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      if (record.unpackArrayHeader() != 2) {
        throw new IllegalArgumentException("not a produced record: a header is a pair of name and value");
      }
      headers.add(new RecordHeader(record.unpackString(), readBytes(record)));
    }
    return headers;
  }
}
