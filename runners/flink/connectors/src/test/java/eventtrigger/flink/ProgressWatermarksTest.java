package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.util.clock.ManualClock;
import org.junit.jupiter.api.Test;

class ProgressWatermarksTest {
  private static final long START_MS = 1_700_000_000_000L;

  private final ManualClock activity = new ManualClock();
  private long nowMs = START_MS;
  private final Said said = new Said();
  private final ProgressWatermarks watermarks =
      new ProgressWatermarks(5, 100, activity, () -> nowMs);

  @Test
  void theNewestRecordLessTheOutOfOrderness() {
    record(START_MS - 5000);
    record(START_MS - 9000);
    assertEquals(List.of(START_MS - 5006), said());
  }

  @Test
  void aSilentPartitionHasBeenReadUpToTheSilence() {
    record(START_MS - 5000);
    passTime(99);
    assertEquals(List.of(START_MS - 5006), said());
    passTime(1);
    assertEquals(List.of(nowMs - 100 - 6), said());
    passTime(1000);
    assertEquals(List.of(nowMs - 100 - 6), said());
  }

  @Test
  void aRecordEndsTheSilence() {
    record(START_MS);
    passTime(100);
    record(START_MS + 1);
    passTime(99);
    assertEquals(List.of(START_MS + 1 - 6), said());
  }

  @Test
  void backpressureIsNoSilence() {
    record(START_MS);
    nowMs += 60_000;
    assertEquals(List.of(START_MS - 6), said());
  }

  @Test
  void aPartitionWithoutRecordsIsIdle() {
    assertEquals(List.of(), said());
    passTime(100);
    assertEquals(List.of("idle"), said());
    record(START_MS);
    assertEquals(List.of(START_MS - 6), said());
  }

  private void record(long timestampMs) {
    watermarks.onEvent(null, timestampMs, said);
  }

  private void passTime(long ms) {
    nowMs += ms;
    activity.advanceTime(Duration.ofMillis(ms));
  }

  private List<Object> said() {
    said.clear();
    watermarks.onPeriodicEmit(said);
    return said;
  }

  private static final class Said extends ArrayList<Object> implements WatermarkOutput {
    @Override
    public void emitWatermark(Watermark watermark) {
      add(watermark.getTimestamp());
    }

    @Override
    public void markIdle() {
      add("idle");
    }

    @Override
    public void markActive() {
      add("active");
    }
  }
}
