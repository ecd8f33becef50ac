package eventtrigger.flink;

import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplitState;

/** Flink's state of a partition, with the partition's time beside it, so that a record finds it without a lookup. */
final class PartitionState extends KafkaPartitionSplitState {
  final StreamTime.Partition time;

  PartitionState(KafkaPartitionSplit split, StreamTime.Partition time) {
    super(split);
    this.time = time;
  }
}
