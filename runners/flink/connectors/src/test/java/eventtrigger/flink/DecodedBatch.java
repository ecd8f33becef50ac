package eventtrigger.flink;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.List;
import org.msgpack.core.MessageUnpacker;

/** A micro-batch that the MessagePack library decodes, independently of our encoder. */
record DecodedBatch(int version, int kind, String topic, List<KafkaRecord> records) {

  static DecodedBatch of(byte[] encoded) {
    try (MessageUnpacker batch = org.msgpack.core.MessagePack.newDefaultUnpacker(encoded)) {
      int fields = batch.unpackArrayHeader();
      int version = batch.unpackInt();
      int kind = batch.unpackInt();
      String topic = batch.unpackString();
      int count = batch.unpackArrayHeader();
      List<KafkaRecord> records = new ArrayList<>();
      for (int i = 0; i < count; i++) {
        records.add(record(topic, batch));
      }
      if (fields != 4 || batch.hasNext()) {
        throw new IllegalArgumentException(fields + " fields, more behind them: " + batch.hasNext());
      }
      return new DecodedBatch(version, kind, topic, records);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static KafkaRecord record(String topic, MessageUnpacker batch) throws IOException {
    if (batch.unpackArrayHeader() != 5) {
      throw new IllegalArgumentException("a record has five fields");
    }
    int partition = batch.unpackInt();
    long offset = batch.unpackLong();
    long timestampMs = batch.unpackLong();
    byte[] key = batch.tryUnpackNil() ? null : batch.readPayload(batch.unpackBinaryHeader());
    byte[] value = batch.readPayload(batch.unpackBinaryHeader());
    return new KafkaRecord(topic, partition, offset, timestampMs, key, value);
  }

  List<Long> offsets() {
    return records.stream().map(KafkaRecord::offset).toList();
  }
}
