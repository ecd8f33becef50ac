package eventtrigger.flink;

import java.util.Collection;
import java.util.Map;
import java.util.concurrent.CompletionStage;
import org.apache.kafka.common.TopicPartition;

/** What brokers are asked about a topic. Answers come later, or not at all; no method waits for one. */
interface Broker extends AutoCloseable {

  /** The ends of partitions, as far as a consumer may ever see them. */
  record Offsets(long highWatermark, long lastStableOffset) {}

  Map<TopicPartition, CompletionStage<Offsets>> ends(Collection<TopicPartition> partitions);

  CompletionStage<Integer> partitionCount(String topic);

  @Override
  void close();
}
