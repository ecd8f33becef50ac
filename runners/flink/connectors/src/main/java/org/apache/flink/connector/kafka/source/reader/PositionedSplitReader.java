package org.apache.flink.connector.kafka.source.reader;

import java.time.Duration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.connector.base.source.reader.RecordsWithSplitIds;
import org.apache.flink.connector.base.source.reader.splitreader.SplitsChange;
import org.apache.flink.connector.kafka.source.metrics.KafkaSourceReaderMetrics;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.InvalidOffsetException;
import org.apache.kafka.clients.consumer.LogTruncationException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.WakeupException;

/**
 * Flink's split reader for partitions without an end. It also says up to which position its records go, and goes on at
 * the earliest record where a position is out of range. It needs a consumer with {@code auto.offset.reset=none}.
 *
 * <p>Unlike Flink's it never waits for the position of a partition whose broker is away, so that others flow on.
 *
 * <p>It is in the connector's package because only there the consumer can be reached.
 */
public final class PositionedSplitReader extends KafkaPartitionSplitReader {
  // Positions are published with each fetch, so one that finds nothing must end soon.
  private static final Duration POLL_TIMEOUT = Duration.ofSeconds(1);
  // A broker that has just said that an offset is out of range is there to say where the log begins.
  private static final Duration LOG_START_TIMEOUT = Duration.ofSeconds(5);
  // By default a consumer waits for half a minute for a broker that is away, and a recovery waits with it. Nothing is
  // lost: offsets lie in the checkpoint.
  private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(1);

  /** Learns where the reader is. */
  public interface Listener {
    /** The reader begins at a position. Called by the fetcher's thread. */
    void startsAt(TopicPartition partition, long position);

    /** A position was out of range, and the reader goes on at another, -1 if unknown. Called by the fetcher's thread. */
    void continuesAt(TopicPartition partition, long position, long outOfRange);

    /** All records before the positions have been emitted. Called by the thread that emits records. */
    void emittedUpTo(Map<TopicPartition, Long> positions);
  }

  private final KafkaSourceReaderMetrics metrics;
  private final Listener listener;

  public PositionedSplitReader(
      Properties properties, SourceReaderContext context, KafkaSourceReaderMetrics metrics, Listener listener) {
    super(properties, context, metrics);
    this.metrics = metrics;
    this.listener = listener;
  }

  @Override
  public RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> fetch() {
    ConsumerRecords<byte[], byte[]> records = poll();
    Map<TopicPartition, Long> positions = new HashMap<>();
    for (TopicPartition partition : consumer().assignment()) {
      Long position = position(partition, Duration.ZERO);
      if (position != null) {
        positions.put(partition, position);
      }
    }
    for (TopicPartition partition : records.partitions()) {
      metrics.maybeAddRecordsLagMetric(consumer(), partition);
    }
    metrics.updateNumBytesInCounter();
    return new PositionedRecords(records, positions, listener, metrics);
  }

  private ConsumerRecords<byte[], byte[]> poll() {
    try {
      return consumer().poll(POLL_TIMEOUT);
    } catch (InvalidOffsetException e) {
      // Thrown only when no records would be returned.
      goOn(e);
    } catch (WakeupException | IllegalStateException e) {
      // Woken up for another task, or nothing is assigned.
    }
    return ConsumerRecords.empty();
  }

  @Override
  public void handleSplitsChanges(SplitsChange<KafkaPartitionSplit> added) {
    Set<TopicPartition> assignment = new HashSet<>(consumer().assignment());
    added.splits().forEach(split -> assignment.add(split.getTopicPartition()));
    consumer().assign(assignment);
    for (KafkaPartitionSplit split : added.splits()) {
      TopicPartition partition = split.getTopicPartition();
      metrics.registerTopicPartition(partition);
      long start = split.getStartingOffset();
      if (start == KafkaPartitionSplit.EARLIEST_OFFSET) {
        consumer().seekToBeginning(Set.of(partition));
      } else if (start == KafkaPartitionSplit.LATEST_OFFSET) {
        consumer().seekToEnd(Set.of(partition));
      } else if (start != KafkaPartitionSplit.COMMITTED_OFFSET) {
        consumer().seek(partition, start);
        listener.startsAt(partition, start);
      }
    }
  }

  @Override
  public void close() {
    consumer().close(CLOSE_TIMEOUT);
  }

  /** Seeks to where reading goes on: the earliest record, or the first one that replaces others. */
  private void goOn(InvalidOffsetException e) {
    Map<TopicPartition, OffsetAndMetadata> replaced =
        e instanceof LogTruncationException truncated ? truncated.divergentOffsets() : Map.of();
    for (TopicPartition partition : e.partitions()) {
      if (replaced.containsKey(partition)) {
        consumer().seek(partition, replaced.get(partition));
      } else {
        consumer().seekToBeginning(Set.of(partition));
      }
      // A group without committed offsets begins here, and skips nothing.
      if (e instanceof OffsetOutOfRangeException known) {
        Long position = position(partition, LOG_START_TIMEOUT);
        long outOfRange = known.offsetOutOfRangePartitions().get(partition);
        listener.continuesAt(partition, position == null ? -1 : position, outOfRange);
      }
    }
  }

  /** The position, or null if it is not known within the timeout. */
  private Long position(TopicPartition partition, Duration timeout) {
    try {
      return consumer().position(partition, timeout);
    } catch (InvalidOffsetException e) {
      goOn(e);
    } catch (TimeoutException | WakeupException e) {
      // Known later.
    }
    return null;
  }

  /** Records of a fetch, and the positions behind them. Flink recycles a fetch when it has emitted all its records. */
  public static final class PositionedRecords implements RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> {
    private final ConsumerRecords<byte[], byte[]> records;
    private final Map<TopicPartition, Long> positions;
    private final Listener listener;
    private final KafkaSourceReaderMetrics metrics;
    private final Iterator<TopicPartition> partitions;
    private TopicPartition partition;
    private Iterator<ConsumerRecord<byte[], byte[]>> ofPartition;
    private long lastOffset;

    public PositionedRecords(
        ConsumerRecords<byte[], byte[]> records,
        Map<TopicPartition, Long> positions,
        Listener listener,
        KafkaSourceReaderMetrics metrics) {
      this.records = records;
      this.positions = positions;
      this.listener = listener;
      this.metrics = metrics;
      this.partitions = records.partitions().iterator();
    }

    @Override
    public String nextSplit() {
      if (!partitions.hasNext()) {
        return null;
      }
      partition = partitions.next();
      ofPartition = records.records(partition).iterator();
      return KafkaPartitionSplit.toSplitId(partition);
    }

    @Override
    public ConsumerRecord<byte[], byte[]> nextRecordFromSplit() {
      if (!ofPartition.hasNext()) {
        metrics.recordCurrentOffset(partition, lastOffset);
        return null;
      }
      ConsumerRecord<byte[], byte[]> record = ofPartition.next();
      lastOffset = record.offset();
      return record;
    }

    @Override
    public Set<String> finishedSplits() {
      return Set.of();
    }

    @Override
    public void recycle() {
      listener.emittedUpTo(positions);
    }
  }
}
