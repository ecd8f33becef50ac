package eventtrigger.flink;

import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.apache.kafka.common.TopicPartition;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Asks brokers where partitions end and how many there are, and keeps the latest answers with the times of their
 * questions. A partition is asked about again only when its question has been answered or has failed, so that a broker
 * that is away neither piles up questions nor keeps others from being asked. One thread asks and closes; any may read.
 */
final class BrokerQuestions {
  private static final Logger LOG = LoggerFactory.getLogger(BrokerQuestions.class);

  private final String topic;
  private final Supplier<Broker> connect;
  private final LongSupplier now;
  private final Map<TopicPartition, StreamTime.End> ends = new ConcurrentHashMap<>();
  private final Set<TopicPartition> open = ConcurrentHashMap.newKeySet();
  private final AtomicBoolean isCounting = new AtomicBoolean();
  private volatile StreamTime.Count count;
  private Broker broker;
  private boolean isFailing;

  BrokerQuestions(String topic, Supplier<Broker> connect, LongSupplier now) {
    this.topic = topic;
    this.connect = connect;
    this.now = now;
  }

  /** The latest answer about a partition, or null. */
  StreamTime.End end(TopicPartition partition) {
    return ends.get(partition);
  }

  /** The latest answer about the number of partitions, or null. */
  StreamTime.Count count() {
    return count;
  }

  /** Asks what is not being asked already. Only connecting may take a moment. */
  void ask(Set<TopicPartition> partitions) {
    try {
      if (broker == null) {
        broker = connect.get();
      }
      long askedAtMs = now.getAsLong();
      Set<TopicPartition> asked = partitions.stream().filter(open::add).collect(Collectors.toSet());
      if (!asked.isEmpty()) {
        broker.ends(asked).forEach((partition, answer) -> keepEnd(partition, answer, askedAtMs));
      }
      if (isCounting.compareAndSet(false, true)) {
        keepCount(broker.partitionCount(topic), askedAtMs);
      }
      isFailing = false;
    } catch (RuntimeException e) {
      // As no answer: the next second asks anew.
      open.removeAll(partitions);
      isCounting.set(false);
      if (!isFailing) {
        isFailing = true;
        LOG.warn("Topic {}: brokers cannot be asked for the ends of partitions; tried again every second", topic, e);
      }
    }
  }

  private void keepEnd(TopicPartition partition, CompletionStage<Broker.Offsets> answer, long askedAtMs) {
    answer.whenComplete(
        (offsets, failure) -> {
          if (failure == null) {
            ends.put(partition, new StreamTime.End(askedAtMs, offsets.highWatermark(), offsets.lastStableOffset()));
          } else {
            LOG.debug("Partition {}: no answer", partition, failure);
          }
          open.remove(partition);
        });
  }

  private void keepCount(CompletionStage<Integer> answer, long askedAtMs) {
    answer.whenComplete(
        (partitions, failure) -> {
          if (failure == null) {
            count = new StreamTime.Count(askedAtMs, partitions);
          } else {
            LOG.debug("Topic {}: no answer", topic, failure);
          }
          isCounting.set(false);
        });
  }

  void close() {
    if (broker != null) {
      broker.close();
    }
  }
}
