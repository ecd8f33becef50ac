package eventtrigger.flink;

import java.io.IOException;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.function.BiConsumer;
import org.apache.flink.api.connector.source.ReaderInfo;
import org.apache.flink.api.connector.source.SourceEvent;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.api.connector.source.SplitsAssignment;
import org.apache.flink.connector.kafka.source.enumerator.KafkaSourceEnumState;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.flink.metrics.groups.SplitEnumeratorMetricGroup;
import org.apache.flink.util.FlinkRuntimeException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Flink's Kafka enumerator, which also tells all readers how many partitions they have been given and whether a reader
 * has delivered a record. A reader hears of partitions after it has got those that are its own.
 *
 * <p>Once partitions have been found, a broker that does not answer a later look for new ones fails nothing: the next
 * look comes.
 */
final class ProgressEnumerator implements SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> {
  private static final Logger LOG = LoggerFactory.getLogger(ProgressEnumerator.class);

  /** Makes Flink's enumerator. */
  interface Factory {
    SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> create(
        SplitEnumeratorContext<KafkaPartitionSplit> context) throws IOException;
  }

  private final List<String> topics;
  private final SplitEnumeratorContext<KafkaPartitionSplit> context;
  private final SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> kafka;
  private final Set<Integer> delivering = new HashSet<>();
  private boolean hasFound;

  ProgressEnumerator(List<String> topics, SplitEnumeratorContext<KafkaPartitionSplit> context, Factory factory) {
    this.topics = topics;
    this.context = context;
    try {
      this.kafka = factory.create(new Context());
    } catch (IOException e) {
      throw new FlinkRuntimeException(e);
    }
  }

  private void tellAll() {
    context.registeredReaders().keySet().forEach(this::tell);
  }

  private void tell(int reader) {
    context.sendEventToSourceReader(reader, new SourceProgress(handedOut(), !delivering.isEmpty()));
  }

  private int handedOut() {
    try {
      // Not those of a topic that the job read before.
      return (int)
          kafka.snapshotState(0).assignedPartitions().stream()
              .filter(partition -> topics.contains(partition.topic()))
              .count();
    } catch (Exception e) {
      throw new FlinkRuntimeException(e);
    }
  }

  @Override
  public void handleSourceEvent(int reader, SourceEvent event) {
    if (event instanceof SourceProgress.FirstRecord) {
      if (delivering.add(reader) && delivering.size() == 1) {
        tellAll();
      }
    } else {
      kafka.handleSourceEvent(reader, event);
    }
  }

  @Override
  public void addReader(int reader) {
    kafka.addReader(reader);
    tell(reader);
  }

  @Override
  public void addSplitsBack(List<KafkaPartitionSplit> splits, int reader) {
    delivering.remove(reader);
    kafka.addSplitsBack(splits, reader);
  }

  @Override
  public void start() {
    kafka.start();
  }

  @Override
  public void handleSplitRequest(int reader, String host) {
    kafka.handleSplitRequest(reader, host);
  }

  @Override
  public KafkaSourceEnumState snapshotState(long checkpoint) throws Exception {
    return kafka.snapshotState(checkpoint);
  }

  /** Does not wait: Flink's enumerator first waits for what it has asked brokers, and a recovery would wait with it. */
  @Override
  public void close() {
    Thread closing =
        new Thread(
            () -> {
              try {
                kafka.close();
              } catch (IOException e) {
                LOG.warn("Topics {}: the enumerator was not closed", topics, e);
              }
            },
            "closes an enumerator");
    closing.setDaemon(true);
    closing.start();
  }

  /** The coordinator as Flink's enumerator sees it. */
  private final class Context implements SplitEnumeratorContext<KafkaPartitionSplit> {

    @Override
    public void assignSplits(SplitsAssignment<KafkaPartitionSplit> assignment) {
      context.assignSplits(assignment);
      tellAll();
    }

    @Override
    public <T> void callAsync(Callable<T> call, BiConsumer<T, Throwable> handler) {
      context.callAsync(call, unlessUnreachable(handler));
    }

    @Override
    public <T> void callAsync(Callable<T> call, BiConsumer<T, Throwable> handler, long delayMs, long periodMs) {
      context.callAsync(call, unlessUnreachable(handler), delayMs, periodMs);
    }

    private <T> BiConsumer<T, Throwable> unlessUnreachable(BiConsumer<T, Throwable> handler) {
      return (result, failure) -> {
        if (failure != null && hasFound && handedOut() > 0) {
          LOG.warn("Topics {}: no answer on new partitions; asked again later", topics, failure);
          return;
        }
        handler.accept(result, failure);
        hasFound = true;
      };
    }

    @Override
    public SplitEnumeratorMetricGroup metricGroup() {
      return context.metricGroup();
    }

    @Override
    public void sendEventToSourceReader(int reader, SourceEvent event) {
      context.sendEventToSourceReader(reader, event);
    }

    @Override
    public int currentParallelism() {
      return context.currentParallelism();
    }

    @Override
    public Map<Integer, ReaderInfo> registeredReaders() {
      return context.registeredReaders();
    }

    @Override
    public void signalNoMoreSplits(int reader) {
      context.signalNoMoreSplits(reader);
    }

    @Override
    public void runInCoordinatorThread(Runnable runnable) {
      context.runInCoordinatorThread(runnable);
    }
  }
}
