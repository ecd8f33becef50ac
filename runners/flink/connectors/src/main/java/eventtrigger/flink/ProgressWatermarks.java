package eventtrigger.flink;

import java.util.function.LongSupplier;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.util.clock.RelativeClock;

/**
 * Watermarks of a partition: the timestamp of its newest record, less the out-of-orderness. If a partition has no
 * record for {@code idlenessMs} after its last one, the watermark follows the clock at that distance, so that timers
 * fire although no further event comes. A partition without any record yet is idle.
 *
 * <p>Silence is measured on a clock that stops while backpressure keeps the source from reading. Flink makes another
 * generator for the reader as a whole. That one gets no record and must not advance the watermark of the partitions.
 */
final class ProgressWatermarks implements WatermarkGenerator<KafkaRecord> {
  private final long outOfOrdernessMs;
  private final long idlenessMs;
  private final RelativeClock activity;
  private final LongSupplier now;

  private long newestMs = Long.MIN_VALUE;
  private long lastRecordAtMs;

  ProgressWatermarks(long outOfOrdernessMs, long idlenessMs, RelativeClock activity, LongSupplier now) {
    this.outOfOrdernessMs = outOfOrdernessMs;
    this.idlenessMs = idlenessMs;
    this.activity = activity;
    this.now = now;
    this.lastRecordAtMs = activity.relativeTimeMillis();
  }

  @Override
  public void onEvent(KafkaRecord record, long timestampMs, WatermarkOutput output) {
    newestMs = Math.max(newestMs, timestampMs);
    lastRecordAtMs = activity.relativeTimeMillis();
  }

  @Override
  public void onPeriodicEmit(WatermarkOutput output) {
    boolean isSilent = activity.relativeTimeMillis() - lastRecordAtMs >= idlenessMs;
    if (newestMs > Long.MIN_VALUE) {
      long readUpToMs = isSilent ? Math.max(newestMs, now.getAsLong() - idlenessMs) : newestMs;
      output.emitWatermark(new Watermark(readUpToMs - outOfOrdernessMs - 1));
    } else if (isSilent) {
      output.markIdle();
    }
  }
}
