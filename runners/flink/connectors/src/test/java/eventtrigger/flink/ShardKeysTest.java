package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.util.Arrays;
import org.apache.beam.runners.flink.translation.wrappers.streaming.KvToFlinkKeyKeySelector;
import org.apache.beam.sdk.coders.ByteArrayCoder;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.WindowedValues;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ShardKeysTest {

  @ParameterizedTest
  @CsvSource({"1,1", "16,128", "128,128", "7,100", "200,128", "64,4096", "3,32768"})
  void everyShardHasItsKeyGroup(int userShards, int maxParallelism) {
    ShardKeys keys = new ShardKeys(userShards, maxParallelism);
    for (int shard = 0; shard < userShards; shard++) {
      byte[] key = keys.keyOf(shard);
      assertEquals(shard, ByteBuffer.wrap(key).getInt());
      assertEquals(shard * maxParallelism / userShards, keyGroupAsTheRunnerComputesIt(key, maxParallelism));
    }
  }

  @ParameterizedTest
  @CsvSource({"128,128,2", "128,128,3", "128,128,16", "64,4096,5", "16,128,4"})
  void subtasksGetEqualNumbersOfShards(int userShards, int maxParallelism, int parallelism) {
    ShardKeys keys = new ShardKeys(userShards, maxParallelism);
    int[] shardsOf = new int[parallelism];
    for (int shard = 0; shard < userShards; shard++) {
      int group = ShardKeys.keyGroupOf(keys.keyOf(shard), maxParallelism);
      shardsOf[KeyGroupRangeAssignment.computeOperatorIndexForKeyGroup(maxParallelism, parallelism, group)]++;
    }
    int least = Arrays.stream(shardsOf).min().getAsInt();
    int most = Arrays.stream(shardsOf).max().getAsInt();
    assertTrue(most - least <= 1, Arrays.toString(shardsOf));
  }

  @Test
  void saltIsTheSmallestThatFits() {
    byte[] key = new ShardKeys(16, 128).keyOf(5);
    int salt = ByteBuffer.wrap(key).getInt(4);
    for (int smaller = 0; smaller < salt; smaller++) {
      byte[] other = ByteBuffer.allocate(8).putInt(5).putInt(smaller).array();
      assertTrue(ShardKeys.keyGroupOf(other, 128) != 40, "salt " + smaller + " fits as well as " + salt);
    }
  }

  @Test
  void keyDoesNotDependOnTheOrderOfUse() {
    ShardKeys used = new ShardKeys(16, 128);
    used.keyOf(9);
    used.keyOf(3);
    assertArrayEquals(new ShardKeys(16, 128).keyOf(3), used.keyOf(3));
  }

  private static int keyGroupAsTheRunnerComputesIt(byte[] key, int maxParallelism) {
    KvToFlinkKeyKeySelector<byte[], byte[]> selector = new KvToFlinkKeyKeySelector<>(ByteArrayCoder.of());
    var element = WindowedValues.valueInGlobalWindow(KV.of(key, new byte[0]));
    return KeyGroupRangeAssignment.assignToKeyGroup(selector.getKey(element), maxParallelism);
  }
}
