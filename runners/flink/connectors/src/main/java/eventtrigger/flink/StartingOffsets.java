package eventtrigger.flink;

import java.util.Collection;
import java.util.Map;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;
import org.apache.kafka.common.TopicPartition;

/**
 * Where a job without state starts. Says nothing about where one with state goes on.
 *
 * <p>The latest offsets are looked up once, when the job starts. As Flink has it, each reader would look for "latest",
 * and a job restored before a partition's first record would look again and skip what came in between.
 */
record StartingOffsets(ReadSettings.StartingOffsets start, Long timestampMs) implements OffsetsInitializer {

  @Override
  public Map<TopicPartition, Long> getPartitionOffsets(
      Collection<TopicPartition> partitions, PartitionOffsetsRetriever offsets) {
    if (partitions.isEmpty()) {
      return Map.of();
    }
    return switch (start) {
      case COMMITTED -> OffsetsInitializer.committedOffsets().getPartitionOffsets(partitions, offsets);
      case EARLIEST -> OffsetsInitializer.earliest().getPartitionOffsets(partitions, offsets);
      case LATEST -> offsets.endOffsets(partitions);
      case TIMESTAMP -> OffsetsInitializer.timestamp(timestampMs).getPartitionOffsets(partitions, offsets);
    };
  }

  @Override
  public OffsetResetStrategy getAutoOffsetResetStrategy() {
    return OffsetResetStrategy.NONE;
  }
}
