package eventtrigger.flink;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.MetricGroup;

/** Metrics of each partition: how far its time is behind the clock, why it stands, and what is unread in it. */
final class PartitionGauges {
  private record Shown(long readUpToMs, StreamTime.Hold hold, long unread) {}

  private final MetricGroup metrics;
  private final Map<Integer, Shown> shown = new ConcurrentHashMap<>();

  PartitionGauges(MetricGroup metrics) {
    this.metrics = metrics;
  }

  void add(int partition) {
    // Until it is known how far a partition has been read, its time stands since the reader began.
    shown.put(partition, new Shown(System.currentTimeMillis(), StreamTime.Hold.NO_ANSWER, StreamTime.UNKNOWN));
    String name = "event_trigger.partition." + partition;
    metrics.gauge(
        name + ".time_behind_ms",
        (Gauge<Long>) () -> Math.max(0, System.currentTimeMillis() - shown.get(partition).readUpToMs()));
    metrics.gauge(name + ".time_hold", (Gauge<Integer>) () -> shown.get(partition).hold().code);
    metrics.gauge(name + ".unread", (Gauge<Long>) () -> shown.get(partition).unread());
  }

  void set(int partition, long readUpToMs, StreamTime.Hold hold, long unread) {
    shown.computeIfPresent(
        partition,
        (number, before) -> new Shown(readUpToMs == StreamTime.NONE ? before.readUpToMs() : readUpToMs, hold, unread));
  }
}
