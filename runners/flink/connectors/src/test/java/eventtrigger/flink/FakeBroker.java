package eventtrigger.flink;

import java.util.Collection;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.common.TopicPartition;

/** Answers at once what a test sets; a partition without an end gets no answer. */
final class FakeBroker implements Broker {
  final Map<TopicPartition, Offsets> ends = new ConcurrentHashMap<>();
  final Map<TopicPartition, CompletableFuture<Offsets>> open = new ConcurrentHashMap<>();
  final Map<TopicPartition, AtomicInteger> asked = new ConcurrentHashMap<>();
  volatile int partitions = 1;
  volatile boolean isClosed;

  void end(TopicPartition partition, long offset) {
    ends.put(partition, new Offsets(offset, offset));
  }

  int asked(TopicPartition partition) {
    return asked.getOrDefault(partition, new AtomicInteger()).get();
  }

  @Override
  public Map<TopicPartition, CompletionStage<Offsets>> ends(Collection<TopicPartition> about) {
    Map<TopicPartition, CompletionStage<Offsets>> answers = new HashMap<>();
    for (TopicPartition partition : about) {
      Offsets end = ends.get(partition);
      CompletableFuture<Offsets> answer = end == null ? new CompletableFuture<>() : CompletableFuture.completedFuture(end);
      open.put(partition, answer);
      answers.put(partition, answer);
      asked.computeIfAbsent(partition, key -> new AtomicInteger()).incrementAndGet();
    }
    return answers;
  }

  @Override
  public CompletionStage<Integer> partitionCount(String topic) {
    return CompletableFuture.completedFuture(partitions);
  }

  @Override
  public void close() {
    isClosed = true;
  }
}
