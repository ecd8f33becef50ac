package eventtrigger.flink;

import java.nio.ByteBuffer;
import java.util.zip.CRC32;
import org.apache.beam.runners.flink.adapter.FlinkKey;
import org.apache.beam.sdk.coders.ByteArrayCoder;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;

/**
 * The Beam keys of the user shards. A key is the shard and a salt. The salt is chosen so that the shards spread evenly
 * over Flink's key groups; hashing alone would give some subtasks several times the load of others. Not thread safe.
 */
final class ShardKeys {
  private final int maxParallelism;
  private final byte[][] keys;
  private final CRC32 crc = new CRC32();

  ShardKeys(int userShards, int maxParallelism) {
    this.maxParallelism = maxParallelism;
    this.keys = new byte[userShards][];
  }

  int userShards() {
    return keys.length;
  }

  int shardOf(byte[] user) {
    crc.reset();
    crc.update(user);
    return (int) (crc.getValue() % keys.length);
  }

  /** The shard's key. The array is shared: callers must not change it. */
  byte[] keyOf(int shard) {
    byte[] key = keys[shard];
    if (key == null) {
      key = search(shard);
      keys[shard] = key;
    }
    return key;
  }

  private byte[] search(int shard) {
    int keyGroup = (int) ((long) shard * maxParallelism / keys.length);
    for (int salt = 0; ; salt++) {
      byte[] key = ByteBuffer.allocate(8).putInt(shard).putInt(salt).array();
      if (keyGroupOf(key, maxParallelism) == keyGroup) {
        return key;
      }
    }
  }

  /** The key group that Flink gives a Beam key of bytes, through the runner's own key encoding. */
  static int keyGroupOf(byte[] key, int maxParallelism) {
    FlinkKey flinkKey = FlinkKey.of(key, ByteArrayCoder.of());
    return KeyGroupRangeAssignment.assignToKeyGroup(flinkKey, maxParallelism);
  }
}
