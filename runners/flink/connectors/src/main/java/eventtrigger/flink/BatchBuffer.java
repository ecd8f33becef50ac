package eventtrigger.flink;

import java.util.Arrays;

/**
 * The pending records of one key, each encoded as MessagePack when it is added: {@code [partition, offset,
 * timestamp_ms, key, value]}. The encoder is written by hand because every event passes it.
 */
final class BatchBuffer {
  // Array header, three integers and two byte string headers at their longest.
  private static final int MAX_RECORD_OVERHEAD = 1 + 5 + 9 + 9 + 5 + 5;
  private static final int INITIAL_CAPACITY = 1024;
  private static final int KEPT_CAPACITY = 16 * 1024;

  private byte[] bytes = new byte[INITIAL_CAPACITY];
  private int length;
  private int records;
  private long minTimestampMs = Long.MAX_VALUE;

  boolean isEmpty() {
    return records == 0;
  }

  int length() {
    return length;
  }

  long minTimestampMs() {
    return minTimestampMs;
  }

  void add(KafkaRecord record) {
    byte[] key = record.key();
    byte[] value = record.value();
    reserve(MAX_RECORD_OVERHEAD + (key == null ? 0 : key.length) + value.length);
    bytes[length++] = (byte) 0x95;
    length = MessagePack.putInteger(bytes, length, record.partition());
    length = MessagePack.putInteger(bytes, length, record.offset());
    length = MessagePack.putInteger(bytes, length, record.timestampMs());
    length = MessagePack.putBinaryOrNil(bytes, length, key);
    length = MessagePack.putBinaryOrNil(bytes, length, value);
    records++;
    minTimestampMs = Math.min(minTimestampMs, record.timestampMs());
  }

  /** The finished micro-batch: {@code prefix}, which ends before the records, and the records. Empties the buffer. */
  byte[] finish(byte[] prefix) {
    byte[] batch = new byte[prefix.length + MessagePack.arrayHeaderLength(records) + length];
    System.arraycopy(prefix, 0, batch, 0, prefix.length);
    int start = MessagePack.putArrayHeader(batch, prefix.length, records);
    System.arraycopy(bytes, 0, batch, start, length);
    clear();
    return batch;
  }

  private void clear() {
    if (bytes.length > KEPT_CAPACITY) {
      bytes = new byte[INITIAL_CAPACITY];
    }
    length = 0;
    records = 0;
    minTimestampMs = Long.MAX_VALUE;
  }

  private void reserve(int more) {
    if (bytes.length - length < more) {
      // As long: doubling a buffer of more than 1 GB would overflow an int.
      long doubled = Math.min(2L * bytes.length, Integer.MAX_VALUE - 8);
      bytes = Arrays.copyOf(bytes, (int) Math.max(doubled, Math.addExact(length, more)));
    }
  }
}
