package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
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
import org.apache.kafka.common.TopicPartition;
import org.junit.jupiter.api.Test;

class ProgressEnumeratorTest {
  private final Coordinator coordinator = new Coordinator();
  private FakeKafkaEnumerator kafka;
  private final ProgressEnumerator enumerator =
      new ProgressEnumerator(List.of("events"), coordinator, context -> kafka = new FakeKafkaEnumerator(context));

  @Test
  void readersHearOfPartitionsAfterTheirOwnHaveComeToThem() {
    register(0);
    register(1);
    coordinator.log.clear();
    kafka.assign(1, 0);
    assertEquals(List.of("1 gets events-0", "0: 1 false", "1: 1 false"), coordinator.log);
    kafka.assign(0, 1);
    assertEquals(List.of("0 gets events-1", "0: 2 false", "1: 2 false"), coordinator.log.subList(3, 6));
  }

  @Test
  void readerThatComesHearsWhatIsAssigned() {
    kafka.assigned.add(new TopicPartition("events", 0));
    kafka.assigned.add(new TopicPartition("read-before", 0));
    register(0);
    assertEquals(List.of("0: 1 false"), coordinator.log);
  }

  @Test
  void firstRecordOfAnyReaderIsToldOnce() {
    register(0);
    register(1);
    coordinator.log.clear();
    enumerator.handleSourceEvent(1, new SourceProgress.FirstRecord());
    enumerator.handleSourceEvent(0, new SourceProgress.FirstRecord());
    assertEquals(List.of("0: 0 true", "1: 0 true"), coordinator.log);
    register(2);
    assertEquals("2: 0 true", coordinator.log.get(2));
  }

  @Test
  void nothingIsDeliveredAfterAllReadersFailed() {
    register(0);
    enumerator.handleSourceEvent(0, new SourceProgress.FirstRecord());
    enumerator.addSplitsBack(List.of(), 0);
    coordinator.log.clear();
    register(0);
    assertEquals(List.of("0: 0 false"), coordinator.log);
  }

  @Test
  void lookForNewPartitionsMayFailOnceSomeHaveBeenFound() {
    List<String> handled = new ArrayList<>();
    kafka.look(handled);
    BiConsumer<String, Throwable> handler = coordinator.handler;
    assertThrows(IllegalStateException.class, () -> handler.accept(null, new IllegalStateException("away")));
    handler.accept("found", null);
    kafka.assign(0, 0);
    handler.accept(null, new IllegalStateException("away"));
    handler.accept("found more", null);
    assertEquals(List.of("found", "found more"), handled);
  }

  private void register(int reader) {
    coordinator.readers.put(reader, new ReaderInfo(reader, "localhost"));
    enumerator.addReader(reader);
  }

  /** Logs what it is told to send. */
  private static final class Coordinator implements SplitEnumeratorContext<KafkaPartitionSplit> {
    final Map<Integer, ReaderInfo> readers = new TreeMap<>();
    final List<String> log = new ArrayList<>();
    BiConsumer<String, Throwable> handler;

    @Override
    public void sendEventToSourceReader(int reader, SourceEvent event) {
      SourceProgress progress = (SourceProgress) event;
      log.add(reader + ": " + progress.partitions() + " " + progress.isStarted());
    }

    @Override
    public void assignSplits(SplitsAssignment<KafkaPartitionSplit> assignment) {
      assignment.assignment().forEach((reader, splits) -> splits.forEach(s -> log.add(reader + " gets " + s.splitId())));
    }

    @Override
    @SuppressWarnings("unchecked")
    public <T> void callAsync(Callable<T> call, BiConsumer<T, Throwable> handler, long delayMs, long periodMs) {
      this.handler = (BiConsumer<String, Throwable>) handler;
    }

    @Override
    public <T> void callAsync(Callable<T> call, BiConsumer<T, Throwable> handler) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Map<Integer, ReaderInfo> registeredReaders() {
      return readers;
    }

    @Override
    public int currentParallelism() {
      return 2;
    }

    @Override
    public SplitEnumeratorMetricGroup metricGroup() {
      throw new UnsupportedOperationException();
    }

    @Override
    public void signalNoMoreSplits(int reader) {
      throw new UnsupportedOperationException();
    }

    @Override
    public void runInCoordinatorThread(Runnable runnable) {
      runnable.run();
    }
  }

  /** Assigns what a test says. */
  private static final class FakeKafkaEnumerator implements SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> {
    final Set<TopicPartition> assigned = new HashSet<>();
    private final SplitEnumeratorContext<KafkaPartitionSplit> context;

    FakeKafkaEnumerator(SplitEnumeratorContext<KafkaPartitionSplit> context) {
      this.context = context;
    }

    void assign(int reader, int number) {
      TopicPartition partition = new TopicPartition("events", number);
      assigned.add(partition);
      context.assignSplits(new SplitsAssignment<>(new KafkaPartitionSplit(partition, 0), reader));
    }

    void look(List<String> handled) {
      context.callAsync(
          () -> "",
          (found, failure) -> {
            if (failure != null) {
              throw new IllegalStateException(failure);
            }
            handled.add(found);
          },
          0,
          1);
    }

    @Override
    public KafkaSourceEnumState snapshotState(long checkpoint) {
      return new KafkaSourceEnumState(assigned, Set.of(), true);
    }

    @Override
    public void start() {}

    @Override
    public void handleSplitRequest(int reader, String host) {}

    @Override
    public void addSplitsBack(List<KafkaPartitionSplit> splits, int reader) {}

    @Override
    public void addReader(int reader) {}

    @Override
    public void close() {}
  }
}
