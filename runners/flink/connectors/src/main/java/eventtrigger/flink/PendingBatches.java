package eventtrigger.flink;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The unfinished micro-batches, one per Beam key, all of one topic. A key's records keep the order in which they were
 * added. Not thread safe.
 */
final class PendingBatches {
  private static final int VERSION = 1;

  /** Receives finished batches. */
  interface Receiver {
    void accept(byte[] key, byte[] batch, long minTimestampMs);
  }

  private final ReadSettings settings;
  private final ShardKeys shardKeys;
  private final BatchBuffer[] byShard;
  private final List<Integer> filledShards = new ArrayList<>();
  private final Map<ByteBuffer, BatchBuffer> byUser = new LinkedHashMap<>();
  private String topic;
  private byte[] prefix;
  private int records;
  private long bytes;

  PendingBatches(ReadSettings settings) {
    this.settings = settings;
    this.shardKeys = new ShardKeys(settings.userShards(), settings.maxParallelism());
    this.byShard = new BatchBuffer[settings.userShards()];
  }

  private static byte[] prefix(ReadSettings.Kind kind, String topic) {
    byte[] name = MessagePack.string(topic);
    byte[] prefix = new byte[3 + name.length];
    prefix[0] = (byte) 0x94;
    prefix[1] = VERSION;
    prefix[2] = (byte) kind.code;
    System.arraycopy(name, 0, prefix, 3, name.length);
    return prefix;
  }

  boolean isEmpty() {
    return records == 0;
  }

  boolean isFull() {
    return records >= settings.maxBatchRecords() || bytes >= settings.maxBatchBytes();
  }

  /** Whether the record has the topic of the pending records: a batch has one topic. */
  boolean accepts(KafkaRecord record) {
    return records == 0 || record.topic().equals(topic);
  }

  /** Adds a record with a value to the batch of its user, or to the batch of every shard if it concerns all users. */
  void add(KafkaRecord record) {
    if (!accepts(record)) {
      throw new IllegalArgumentException("a record of " + record.topic() + " among those of " + topic);
    }
    if (!record.topic().equals(topic)) {
      topic = record.topic();
      prefix = prefix(settings.kind(), topic);
    }
    if (settings.kind() == ReadSettings.Kind.CONTROL) {
      addControl(record);
    } else if (settings.userKey() == ReadSettings.UserKey.FIELD) {
      addForUser(RecordUsers.userOfBody(record), record);
    } else {
      addForUser(RecordUsers.userOfKey(record), record);
    }
  }

  private void addControl(KafkaRecord record) {
    byte[] user = RecordUsers.userOfControl(record);
    if (user != null) {
      addForUser(user, record);
    } else if (byShard.length == 0) {
      // Without shards the set of keys is unknown; Python makes this record of the empty user a dead letter.
      addForUser(RecordUsers.NO_USER, record);
    } else {
      for (int shard = 0; shard < byShard.length; shard++) {
        addTo(bufferOf(shard), record);
      }
    }
  }

  private void addForUser(byte[] user, KafkaRecord record) {
    if (byShard.length == 0) {
      addTo(byUser.computeIfAbsent(ByteBuffer.wrap(user), unused -> new BatchBuffer()), record);
    } else {
      addTo(bufferOf(shardKeys.shardOf(user)), record);
    }
  }

  private BatchBuffer bufferOf(int shard) {
    BatchBuffer buffer = byShard[shard];
    if (buffer == null) {
      buffer = new BatchBuffer();
      byShard[shard] = buffer;
    }
    if (buffer.isEmpty()) {
      filledShards.add(shard);
    }
    return buffer;
  }

  private void addTo(BatchBuffer buffer, KafkaRecord record) {
    int before = buffer.length();
    buffer.add(record);
    bytes += buffer.length() - before;
    records++;
  }

  /** Passes every batch to the receiver; no records are pending afterwards. */
  void drainTo(Receiver receiver) {
    for (int shard : filledShards) {
      drain(shardKeys.keyOf(shard), byShard[shard], receiver);
    }
    byUser.forEach((user, buffer) -> drain(user.array(), buffer, receiver));
    filledShards.clear();
    byUser.clear();
    records = 0;
    bytes = 0;
  }

  private void drain(byte[] key, BatchBuffer buffer, Receiver receiver) {
    long minTimestampMs = buffer.minTimestampMs();
    receiver.accept(key, buffer.finish(prefix), minTimestampMs);
  }
}
