package org.apache.flink.connector.kafka.source.reader;

import java.io.IOException;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.connector.base.source.reader.RecordsBySplits;
import org.apache.flink.connector.base.source.reader.RecordsWithSplitIds;
import org.apache.flink.connector.base.source.reader.splitreader.SplitsChange;
import org.apache.flink.connector.kafka.source.metrics.KafkaSourceReaderMetrics;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.LogTruncationException;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.WakeupException;

/**
 * Flink's split reader that also says up to which position its records go, and that goes on at the earliest record
 * where a position is out of range. It needs a consumer with {@code auto.offset.reset=none}.
 *
 * <p>It is in the connector's package because only there the consumer can be reached.
 */
public final class PositionedSplitReader extends KafkaPartitionSplitReader {
  // Whoever has just said that an offset is out of range is there to say where the log begins.
  private static final Duration LOG_START_TIMEOUT = Duration.ofSeconds(5);

  /** Learns where the reader is. */
  public interface Listener {
    /** The reader begins at a position. Called by the fetcher's thread. */
    void startsAt(TopicPartition partition, long position);

    /** A position was out of range, and the reader goes on at another, -1 if unknown. Called by the fetcher's thread. */
    void continuesAt(TopicPartition partition, long position, long outOfRange);

    /** All records before the positions have been emitted. Called by the thread that emits records. */
    void emittedUpTo(Map<TopicPartition, Long> positions);
  }

  private final Listener listener;

  public PositionedSplitReader(
      Properties properties, SourceReaderContext context, KafkaSourceReaderMetrics metrics, Listener listener) {
    super(properties, context, metrics);
    this.listener = listener;
  }

  @Override
  public RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> fetch() throws IOException {
    RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> records;
    try {
      records = super.fetch();
    } catch (OffsetOutOfRangeException e) {
      reset(e);
      return new RecordsBySplits.Builder<ConsumerRecord<byte[], byte[]>>().build();
    }
    Map<TopicPartition, Long> positions = new HashMap<>();
    for (TopicPartition partition : consumer().assignment()) {
      Long position = position(partition, Duration.ZERO);
      if (position != null) {
        positions.put(partition, position);
      }
    }
    return new PositionedRecords(records, positions, listener);
  }

  @Override
  public void handleSplitsChanges(SplitsChange<KafkaPartitionSplit> change) {
    try {
      super.handleSplitsChanges(change);
    } catch (NoOffsetForPartitionException e) {
      // A group without committed offsets. All seeks have been made; what failed looks for stopping offsets.
      consumer().seekToBeginning(e.partitions());
    }
    for (KafkaPartitionSplit split : change.splits()) {
      Long position = position(split.getTopicPartition(), Duration.ZERO);
      if (position != null) {
        listener.startsAt(split.getTopicPartition(), position);
      }
    }
  }

  private void reset(OffsetOutOfRangeException e) {
    e.offsetOutOfRangePartitions()
        .forEach(
            (partition, outOfRange) -> {
              if (e instanceof LogTruncationException truncated && truncated.divergentOffsets().containsKey(partition)) {
                consumer().seek(partition, truncated.divergentOffsets().get(partition));
              } else {
                consumer().seekToBeginning(Set.of(partition));
              }
              Long position = position(partition, LOG_START_TIMEOUT);
              listener.continuesAt(partition, position == null ? -1 : position, outOfRange);
            });
  }

  private Long position(TopicPartition partition, Duration timeout) {
    try {
      return consumer().position(partition, timeout);
    } catch (TimeoutException | WakeupException e) {
      return null;
    }
  }

  /** Records of a fetch, and the positions behind them. Flink recycles a fetch when it has emitted all its records. */
  public static final class PositionedRecords implements RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> {
    private final RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> records;
    private final Map<TopicPartition, Long> positions;
    private final Listener listener;

    public PositionedRecords(
        RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>> records,
        Map<TopicPartition, Long> positions,
        Listener listener) {
      this.records = records;
      this.positions = positions;
      this.listener = listener;
    }

    @Override
    public String nextSplit() {
      return records.nextSplit();
    }

    @Override
    public ConsumerRecord<byte[], byte[]> nextRecordFromSplit() {
      return records.nextRecordFromSplit();
    }

    @Override
    public Set<String> finishedSplits() {
      return records.finishedSplits();
    }

    @Override
    public void recycle() {
      records.recycle();
      listener.emittedUpTo(positions);
    }
  }
}
