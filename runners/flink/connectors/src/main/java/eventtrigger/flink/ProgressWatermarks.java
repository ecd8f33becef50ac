package eventtrigger.flink;

import java.util.function.LongSupplier;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.util.clock.RelativeClock;

/**
 * How far a partition has been read: the newest record's time, less the out-of-orderness. A partition that was silent
 * for a while after its last record has been read up to that while ago, so that what waits for an end of time does not
 * wait for somebody else's event. One that has said nothing yet is idle.
 *
 * <p>Silence is measured on a clock that stands still while backpressure keeps the source from reading. Flink makes one
 * more generator for a reader as a whole, which sees no record: it must not speak for the partitions.
 */
final class ProgressWatermarks implements WatermarkGenerator<KafkaRecord> {
  private final long outOfOrdernessMs;
  private final long idlenessMs;
  private final RelativeClock activity;
  private final LongSupplier now;

  private long newestMs = Long.MIN_VALUE;
  private long heardAtMs;

  ProgressWatermarks(long outOfOrdernessMs, long idlenessMs, RelativeClock activity, LongSupplier now) {
    this.outOfOrdernessMs = outOfOrdernessMs;
    this.idlenessMs = idlenessMs;
    this.activity = activity;
    this.now = now;
    this.heardAtMs = activity.relativeTimeMillis();
  }

  @Override
  public void onEvent(KafkaRecord record, long timestampMs, WatermarkOutput output) {
    newestMs = Math.max(newestMs, timestampMs);
    heardAtMs = activity.relativeTimeMillis();
  }

  @Override
  public void onPeriodicEmit(WatermarkOutput output) {
    boolean isSilent = activity.relativeTimeMillis() - heardAtMs >= idlenessMs;
    if (newestMs > Long.MIN_VALUE) {
      long reachedMs = isSilent ? Math.max(newestMs, now.getAsLong() - idlenessMs) : newestMs;
      output.emitWatermark(new Watermark(reachedMs - outOfOrdernessMs - 1));
    } else if (isSilent) {
      output.markIdle();
    }
  }
}
