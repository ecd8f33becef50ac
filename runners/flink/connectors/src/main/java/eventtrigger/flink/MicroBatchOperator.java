package eventtrigger.flink;

import java.util.List;
import org.apache.beam.sdk.transforms.windowing.BoundedWindow;
import org.apache.beam.sdk.transforms.windowing.GlobalWindow;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.beam.sdk.values.WindowedValues;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.metrics.Counter;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.ChainingStrategy;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.joda.time.Instant;

/**
 * Collects records of a topic for a few milliseconds and emits them as one micro-batch per Beam key.
 *
 * <p>The operator keeps no records over a checkpoint. It emits all pending batches before each barrier, watermark and
 * the end of input, so that the offsets in a checkpoint match the records before its barrier. Its only state is the two
 * numbers that keys depend on.
 */
final class MicroBatchOperator extends AbstractStreamOperator<WindowedValue<KV<byte[], byte[]>>>
    implements OneInputStreamOperator<KafkaRecord, WindowedValue<KV<byte[], byte[]>>> {
  private static final long MIN_TIMESTAMP_MS = BoundedWindow.TIMESTAMP_MIN_VALUE.getMillis();
  private static final long MAX_TIMESTAMP_MS = GlobalWindow.INSTANCE.maxTimestamp().getMillis();

  private final ReadSettings settings;

  private transient PendingBatches pending;
  private transient ListState<Tuple2<Integer, Integer>> sharding;
  private transient Counter tombstones;
  private transient long lingerUntil;
  private transient boolean timerSet;

  MicroBatchOperator(ReadSettings settings) {
    this.settings = settings;
    this.chainingStrategy = ChainingStrategy.ALWAYS;
  }

  @Override
  public void open() throws Exception {
    super.open();
    pending = new PendingBatches(settings);
    tombstones = getMetricGroup().counter("tombstones");
  }

  @Override
  public void processElement(StreamRecord<KafkaRecord> element) {
    KafkaRecord record = element.getValue();
    if (record.value() == null) {
      tombstones.inc();
      return;
    }
    if (!pending.accepts(record)) {
      flush();
    }
    boolean first = pending.isEmpty();
    pending.add(record);
    if (settings.lingerMs() == 0 || pending.isFull()) {
      flush();
    } else if (first) {
      startLinger();
    }
  }

  /**
   * The wait ends at the next multiple of the linger time on the clock, the same for all subtasks. So their
   * micro-batches reach the next step together and share its bundles. A bundle costs as much as dozens of records. On
   * average a record waits half the linger time.
   */
  private void startLinger() {
    long now = getProcessingTimeService().getCurrentProcessingTime();
    lingerUntil = now - Math.floorMod(now, (long) settings.lingerMs()) + settings.lingerMs();
    if (!timerSet) {
      setTimer();
    }
  }

  private void setTimer() {
    timerSet = true;
    getProcessingTimeService().registerTimer(lingerUntil, this::onTimer);
  }

  private void onTimer(long time) {
    timerSet = false;
    if (pending.isEmpty()) {
      return;
    }
    // The batch that set the timer may have been emitted early because it was full; a later batch has a later time.
    if (time < lingerUntil) {
      setTimer();
    } else {
      flush();
    }
  }

  private void flush() {
    pending.drainTo(this::emit);
  }

  private void emit(byte[] key, byte[] batch, long minTimestampMs) {
    Instant timestamp = Instant.ofEpochMilli(Math.max(MIN_TIMESTAMP_MS, Math.min(minTimestampMs, MAX_TIMESTAMP_MS)));
    output.collect(
        new StreamRecord<>(WindowedValues.timestampedValueInGlobalWindow(KV.of(key, batch), timestamp)));
  }

  @Override
  public void prepareSnapshotPreBarrier(long checkpointId) {
    flush();
  }

  @Override
  public void processWatermark(Watermark mark) throws Exception {
    flush();
    super.processWatermark(mark);
  }

  @Override
  public void processWatermarkStatus(WatermarkStatus status) throws Exception {
    flush();
    super.processWatermarkStatus(status);
  }

  @Override
  public void finish() throws Exception {
    flush();
    super.finish();
  }

  @Override
  public void initializeState(StateInitializationContext context) throws Exception {
    super.initializeState(context);
    sharding =
        context
            .getOperatorStateStore()
            .getUnionListState(new ListStateDescriptor<>("sharding", Types.TUPLE(Types.INT, Types.INT)));
    for (Tuple2<Integer, Integer> restored : sharding.get()) {
      checkUnchanged("user_shards", restored.f0, settings.userShards());
      checkUnchanged("max_parallelism", restored.f1, settings.maxParallelism());
    }
  }

  private static void checkUnchanged(String setting, int old, int now) {
    if (old != now) {
      // A restart would not help: the state of users is stored under keys that this job never uses.
      throw new SuppressRestartsException(
          new IllegalStateException(
              String.format(
                  "setting '%s' is %d, but the restored state was written with %d. It is fixed for the life of a"
                      + " job's state: start with %d, or without the savepoint",
                  setting, now, old, old)));
    }
  }

  @Override
  public void snapshotState(StateSnapshotContext context) throws Exception {
    super.snapshotState(context);
    sharding.update(List.of(Tuple2.of(settings.userShards(), settings.maxParallelism())));
  }
}
