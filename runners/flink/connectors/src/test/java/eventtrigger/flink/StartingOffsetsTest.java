package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;
import org.apache.kafka.common.TopicPartition;
import org.junit.jupiter.api.Test;

class StartingOffsetsTest {
  private static final TopicPartition PARTITION = new TopicPartition("events", 0);

  @Test
  void latestIsAnOffsetThatAStateKeeps() {
    assertEquals(7, offset(ReadSettings.StartingOffsets.LATEST, null));
  }

  @Test
  void timestampIsLookedUpAndBehindTheLastRecordItIsTheEnd() {
    assertEquals(4, offset(ReadSettings.StartingOffsets.TIMESTAMP, 1000L));
    assertEquals(7, offset(ReadSettings.StartingOffsets.TIMESTAMP, 9000L));
  }

  @Test
  void earliestAndCommittedAreLookedUpByReaders() {
    assertEquals(KafkaPartitionSplit.EARLIEST_OFFSET, offset(ReadSettings.StartingOffsets.EARLIEST, null));
    assertEquals(KafkaPartitionSplit.COMMITTED_OFFSET, offset(ReadSettings.StartingOffsets.COMMITTED, null));
  }

  @Test
  void noStartLetsTheConsumerResetAPosition() {
    for (ReadSettings.StartingOffsets start : ReadSettings.StartingOffsets.values()) {
      assertEquals(OffsetResetStrategy.NONE, new StartingOffsets(start, 1L).getAutoOffsetResetStrategy());
      assertEquals(Map.of(), new StartingOffsets(start, 1L).getPartitionOffsets(List.of(), new Broker()));
    }
  }

  private static long offset(ReadSettings.StartingOffsets start, Long timestampMs) {
    return new StartingOffsets(start, timestampMs).getPartitionOffsets(List.of(PARTITION), new Broker()).get(PARTITION);
  }

  /** A log of seven records, the fifth of which came at 1000. */
  private static final class Broker implements OffsetsInitializer.PartitionOffsetsRetriever {
    @Override
    public Map<TopicPartition, Long> committedOffsets(Collection<TopicPartition> partitions) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Map<TopicPartition, Long> endOffsets(Collection<TopicPartition> partitions) {
      return Map.of(PARTITION, 7L);
    }

    @Override
    public Map<TopicPartition, Long> beginningOffsets(Collection<TopicPartition> partitions) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Map<TopicPartition, OffsetAndTimestamp> offsetsForTimes(Map<TopicPartition, Long> times) {
      Map<TopicPartition, OffsetAndTimestamp> found = new HashMap<>();
      if (times.get(PARTITION) <= 1000) {
        found.put(PARTITION, new OffsetAndTimestamp(4, 1000));
      }
      return found;
    }
  }
}
