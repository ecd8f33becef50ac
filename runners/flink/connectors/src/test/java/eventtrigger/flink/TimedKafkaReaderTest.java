package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.SourceOutput;
import org.apache.flink.connector.base.source.reader.RecordsBySplits;
import org.apache.flink.connector.base.source.reader.RecordsWithSplitIds;
import org.apache.flink.connector.base.source.reader.splitreader.SplitReader;
import org.apache.flink.connector.base.source.reader.splitreader.SplitsChange;
import org.apache.flink.connector.base.source.reader.synchronization.FutureCompletingBlockingQueue;
import org.apache.flink.connector.kafka.source.metrics.KafkaSourceReaderMetrics;
import org.apache.flink.connector.kafka.source.reader.PositionedSplitReader.PositionedRecords;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class TimedKafkaReaderTest {
  private static final TopicPartition FIRST = new TopicPartition("events", 0);
  private static final TopicPartition SECOND = new TopicPartition("events", 1);
  private static final long OLD_MS = 1_700_000_000_000L;
  private static final int OUT_OF_ORDERNESS_MS = 5000;

  private final FakeBroker broker = new FakeBroker();
  private final ReaderContext context = new ReaderContext();
  private final KafkaSourceReaderMetrics metrics = new KafkaSourceReaderMetrics(context.metricGroup());
  private final Positions positions = new Positions(context.metricGroup());
  private final FakeSplitReader kafka = new FakeSplitReader();
  private final Output output = new Output();
  private TimedKafkaReader reader;

  @AfterEach
  void close() throws Exception {
    if (reader != null) {
      reader.close();
    }
  }

  @Test
  void watermarkFollowsTheRecordsThatWereEmitted() throws Exception {
    broker.end(FIRST, 9);
    start(List.of(), FIRST);
    handedOut(1);
    fetch(FIRST, 0, OLD_MS, OLD_MS + 7);
    pollUntil(() -> output.contains(OLD_MS + 7 - OUT_OF_ORDERNESS_MS - 1));
    assertEquals(List.of("0", "1"), output.records());
    assertTrue(output.indexOf("1") < output.indexOf(OLD_MS + 7 - OUT_OF_ORDERNESS_MS - 1));
  }

  @Test
  void fetchedRecordsThatWaitInTheReaderHoldTheWatermark() throws Exception {
    broker.end(FIRST, 3);
    start(List.of(), FIRST);
    handedOut(1);
    fetch(FIRST, 0, OLD_MS, OLD_MS + 1, OLD_MS + 2);
    pollUntil(() -> output.records().equals(List.of("0")));
    // The broker's end is the fetcher's position. Answers and ticks come, but two records have not been emitted.
    int asked = broker.asked(FIRST);
    await(() -> broker.asked(FIRST) >= asked + 2);
    reader.pollNext(output);
    assertEquals(List.of("0", "1"), output.records());
    assertTrue(output.watermark() <= OLD_MS + 1 - OUT_OF_ORDERNESS_MS - 1, output.toString());
    pollUntil(() -> output.watermark() > OLD_MS + 2);
    assertEquals(List.of("0", "1", "2"), output.records());
  }

  @Test
  void timeInTheFutureCountsAsNow() throws Exception {
    start(List.of(), FIRST);
    handedOut(1);
    fetch(FIRST, 0, Long.MAX_VALUE / 2);
    pollUntil(() -> output.watermark() > OLD_MS);
    assertTrue(output.watermark() <= System.currentTimeMillis());
  }

  @Test
  void partitionWithoutRecordsHoldsTheWatermarkUntilItIsKnownToBeEmpty() throws Exception {
    broker.partitions = 2;
    broker.end(FIRST, 9);
    start(List.of(), FIRST, SECOND);
    handedOut(2);
    fetch(FIRST, 0, OLD_MS);
    pollUntil(() -> output.records().equals(List.of("0")) && broker.asked(FIRST) >= 2);
    assertEquals(StreamTime.NONE, output.watermark());
    assertEquals(List.of(new SourceProgress.FirstRecord()), context.sent);
    positions.startsAt(SECOND, 5);
    broker.ends.put(SECOND, new Broker.Offsets(5, 5));
    broker.open.get(SECOND).complete(new Broker.Offsets(5, 5));
    pollUntil(() -> output.watermark() == OLD_MS - OUT_OF_ORDERNESS_MS - 1);
  }

  @Test
  void emptyReaderWaitsForTheFirstRecordOfAnother() throws Exception {
    positions.startsAt(FIRST, 5);
    broker.end(FIRST, 5);
    start(List.of(), FIRST);
    handedOut(1);
    pollUntil(() -> broker.asked(FIRST) >= 2);
    assertEquals(StreamTime.NONE, output.watermark());
    reader.handleSourceEvents(new SourceProgress(1, true));
    pollUntil(() -> output.watermark() > OLD_MS);
    assertTrue(context.sent.isEmpty());
  }

  @Test
  void deadPartitionIsNeitherAskedForNorWaitedFor() throws Exception {
    broker.partitions = 2;
    broker.end(FIRST, 9);
    start(List.of(1), FIRST, SECOND);
    handedOut(2);
    fetch(FIRST, 0, OLD_MS);
    pollUntil(() -> output.watermark() == OLD_MS - OUT_OF_ORDERNESS_MS - 1);
    assertEquals(0, broker.asked(SECOND));
  }

  @Test
  @Timeout(20)
  void readerClosesWhileNoBrokerCanBeReached() throws Exception {
    CountDownLatch unreachable = new CountDownLatch(1);
    CountDownLatch isConnecting = new CountDownLatch(1);
    start(
        List.of(),
        () -> {
          isConnecting.countDown();
          try {
            unreachable.await();
          } catch (InterruptedException e) {
            throw new IllegalStateException(e);
          }
          return broker;
        },
        FIRST);
    assertTrue(isConnecting.await(10, TimeUnit.SECONDS));
    reader.close();
    reader = null;
    assertFalse(broker.isClosed);
    unreachable.countDown();
    await(() -> broker.isClosed);
  }

  private void start(List<Integer> skipped, TopicPartition... partitions) {
    start(skipped, () -> broker, partitions);
  }

  private void start(List<Integer> skipped, Supplier<Broker> connect, TopicPartition... partitions) {
    Properties properties = new Properties();
    properties.setProperty("commit.offsets.on.checkpoint", "false");
    reader =
        new TimedKafkaReader(
            new FutureCompletingBlockingQueue<>(),
            Records.settings(1, skipped),
            properties,
            context,
            metrics,
            positions,
            () -> kafka,
            new BrokerQuestions("events", connect, System::currentTimeMillis));
    reader.start();
    List<KafkaPartitionSplit> splits = new ArrayList<>();
    for (TopicPartition partition : partitions) {
      splits.add(new KafkaPartitionSplit(partition, 0));
    }
    reader.addSplits(splits);
  }

  private void handedOut(int partitions) {
    reader.handleSourceEvents(new SourceProgress(partitions, false));
  }

  private void fetch(TopicPartition partition, long offset, long... timestampsMs) {
    List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
    for (long timestampMs : timestampsMs) {
      records.add(
          new ConsumerRecord<>(
              partition.topic(),
              partition.partition(),
              offset++,
              timestampMs,
              TimestampType.CREATE_TIME,
              0,
              0,
              null,
              new byte[0],
              new RecordHeaders(),
              Optional.empty()));
    }
    metrics.registerTopicPartition(partition);
    kafka.fetches.add(
        new PositionedRecords(
            new ConsumerRecords<>(Map.of(partition, records)), Map.of(partition, offset), positions, metrics));
  }

  private void pollUntil(BooleanSupplier condition) throws Exception {
    while (!condition.getAsBoolean()) {
      reader.pollNext(output);
      Thread.onSpinWait();
    }
  }

  private static void await(BooleanSupplier condition) throws InterruptedException {
    while (!condition.getAsBoolean()) {
      Thread.sleep(10);
    }
  }

  /** What a Kafka consumer would have fetched. */
  private static final class FakeSplitReader
      implements SplitReader<ConsumerRecord<byte[], byte[]>, KafkaPartitionSplit> {
    final BlockingQueue<RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>>> fetches = new LinkedBlockingQueue<>();

    @Override
    public RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> fetch() {
      try {
        RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> next = fetches.poll(50, TimeUnit.MILLISECONDS);
        return next == null ? new RecordsBySplits.Builder<ConsumerRecord<byte[], byte[]>>().build() : next;
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public void handleSplitsChanges(SplitsChange<KafkaPartitionSplit> change) {}

    @Override
    public void pauseOrResumeSplits(Collection<KafkaPartitionSplit> pause, Collection<KafkaPartitionSplit> resume) {}

    @Override
    public void wakeUp() {}

    @Override
    public void close() {}
  }

  /** Offsets as texts and watermarks as numbers, in their order. */
  private static final class Output extends ArrayList<Object> implements ReaderOutput<KafkaRecord> {
    List<String> records() {
      return stream().filter(String.class::isInstance).map(String.class::cast).toList();
    }

    long watermark() {
      return stream().filter(Long.class::isInstance).mapToLong(Long.class::cast).max().orElse(StreamTime.NONE);
    }

    @Override
    public void collect(KafkaRecord record) {
      throw new UnsupportedOperationException();
    }

    @Override
    public void collect(KafkaRecord record, long timestampMs) {
      add(String.valueOf(record.offset()));
    }

    @Override
    public void emitWatermark(Watermark watermark) {
      add(watermark.getTimestamp());
    }

    @Override
    public void markIdle() {
      throw new AssertionError("an idle reader would no longer hold the watermark");
    }

    @Override
    public void markActive() {}

    @Override
    public SourceOutput<KafkaRecord> createOutputForSplit(String split) {
      return this;
    }

    @Override
    public void releaseOutputForSplit(String split) {}
  }
}
