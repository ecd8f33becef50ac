package eventtrigger.flink;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.flink.connector.kafka.source.reader.PositionedSplitReader;
import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.MetricGroup;
import org.apache.kafka.common.TopicPartition;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Where a reader is in its partitions, and what it had to skip there. */
final class Positions implements PositionedSplitReader.Listener {
  private static final Logger LOG = LoggerFactory.getLogger(Positions.class);

  private final Map<TopicPartition, Long> emitted = new ConcurrentHashMap<>();
  private final Counter skipped;
  private final Counter resets;

  Positions(MetricGroup metrics) {
    skipped = metrics.counter("event_trigger.records_skipped");
    resets = metrics.counter("event_trigger.position_resets");
  }

  /** The position before which all records have been emitted, or {@link StreamTime#NONE}. */
  long of(TopicPartition partition) {
    return emitted.getOrDefault(partition, StreamTime.NONE);
  }

  @Override
  public void startsAt(TopicPartition partition, long position) {
    emitted.put(partition, position);
  }

  @Override
  public void emittedUpTo(Map<TopicPartition, Long> positions) {
    emitted.putAll(positions);
  }

  @Override
  public void continuesAt(TopicPartition partition, long position, long outOfRange) {
    resets.inc();
    if (position > outOfRange) {
      skipped.inc(position - outOfRange);
      LOG.error(
          "Partition {}: {} records from offset {} on were deleted before they were read; reading goes on at offset {},"
              + " the earliest there is",
          partition,
          position - outOfRange,
          outOfRange,
          position);
    } else {
      LOG.error(
          "Partition {}: offset {} is behind the log's end, as after a topic was deleted and created anew or a log was"
              + " cut off; reading goes on at {}",
          partition,
          outOfRange,
          position < 0 ? "the earliest record there is" : "offset " + position);
    }
  }
}
