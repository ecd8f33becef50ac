package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.List;
import org.apache.beam.runners.flink.translation.types.CoderTypeSerializer;
import org.apache.beam.sdk.coders.ByteArrayCoder;
import org.apache.beam.sdk.coders.KvCoder;
import org.apache.beam.sdk.transforms.windowing.BoundedWindow;
import org.apache.beam.sdk.transforms.windowing.GlobalWindow;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.beam.sdk.values.WindowedValues;
import org.apache.flink.metrics.Counter;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.runtime.metrics.groups.InternalOperatorMetricGroup;
import org.apache.flink.runtime.metrics.groups.UnregisteredMetricGroups.UnregisteredTaskMetricGroup;
import org.apache.flink.runtime.metrics.util.InterceptingOperatorMetricGroup;
import org.apache.flink.runtime.operators.testutils.MockEnvironment;
import org.apache.flink.runtime.operators.testutils.MockEnvironmentBuilder;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class MicroBatchOperatorTest {
  private static final int LINGER_MS = 5;
  private static final ReadSettings SETTINGS = Records.events(1, LINGER_MS, 3, 1 << 20);

  private final InterceptingOperatorMetricGroup metrics = new InterceptingOperatorMetricGroup();
  private OneInputStreamOperatorTestHarness<KafkaRecord, WindowedValue<KV<byte[], byte[]>>> operator;

  @AfterEach
  void close() throws Exception {
    if (operator != null) {
      operator.close();
    }
  }

  @Test
  void recordsWaitForTheLingerTime() throws Exception {
    open(SETTINGS);
    operator.setProcessingTime(100);
    add(0);
    operator.setProcessingTime(102);
    add(1);
    operator.setProcessingTime(104);
    assertEquals(List.of(), batches());
    operator.setProcessingTime(105);
    assertEquals(List.of(List.of(0L, 1L)), batches());
  }

  @Test
  void waitsEndAtMultiplesOfTheLingerTime() throws Exception {
    open(SETTINGS);
    operator.setProcessingTime(103);
    add(0);
    operator.setProcessingTime(104);
    assertEquals(List.of(), batches());
    operator.setProcessingTime(105);
    assertEquals(List.of(List.of(0L)), batches());
    add(1);
    operator.setProcessingTime(109);
    assertEquals(List.of(), batches());
    operator.setProcessingTime(110);
    assertEquals(List.of(List.of(1L)), batches());
  }

  @Test
  void fullBatchLeavesAtOnceAndTheNextHasItsOwnTime() throws Exception {
    open(SETTINGS);
    operator.setProcessingTime(100);
    add(0, 1, 2);
    assertEquals(List.of(List.of(0L, 1L, 2L)), batches());
    operator.setProcessingTime(106);
    add(3);
    operator.setProcessingTime(109);
    assertEquals(List.of(), batches());
    operator.setProcessingTime(110);
    assertEquals(List.of(List.of(3L)), batches());
  }

  @Test
  void withoutLingerEveryRecordIsABatch() throws Exception {
    open(Records.events(1, 0, 3, 1 << 20));
    add(0, 1);
    assertEquals(List.of(List.of(0L), List.of(1L)), batches());
  }

  @Test
  void batchOfTooManyBytesLeavesAtOnce() throws Exception {
    open(Records.events(1, LINGER_MS, 1000, 30));
    add(0, 1);
    assertEquals(List.of(), batches());
    add(2);
    assertEquals(List.of(List.of(0L, 1L, 2L)), batches());
  }

  @Test
  void recordOfAnotherTopicFlushesPendingRecords() throws Exception {
    open(Records.settings(ReadSettings.Kind.CONTROL, "control", 1, LINGER_MS, 3, 1 << 20));
    operator.setProcessingTime(100);
    operator.processElement(Records.control("rules", 7, "{}"), 0);
    operator.processElement(Records.control("control", 3, "{}"), 0);
    operator.processElement(Records.control("control", 4, "{}"), 0);
    assertEquals(List.of(List.of(7L)), batches());
    operator.setProcessingTime(105);
    assertEquals(List.of(List.of(3L, 4L)), batches());
  }

  @Test
  void noRecordIsPendingOverABarrier() throws Exception {
    open(SETTINGS);
    add(0);
    operator.prepareSnapshotPreBarrier(1);
    assertEquals(List.of(List.of(0L)), batches());
  }

  @Test
  void recordsGoBeforeTheWatermarkThatFollowedThem() throws Exception {
    open(SETTINGS);
    add(0);
    operator.processWatermark(new Watermark(7));
    Object[] output = operator.getOutput().toArray();
    assertInstanceOf(StreamRecord.class, output[0]);
    assertEquals(new Watermark(7), output[1]);
  }

  @Test
  void recordsGoBeforeTheirSourceTurnsIdle() throws Exception {
    open(SETTINGS);
    add(0);
    operator.processWatermarkStatus(WatermarkStatus.IDLE);
    Object[] output = operator.getOutput().toArray();
    assertInstanceOf(StreamRecord.class, output[0]);
    assertEquals(WatermarkStatus.IDLE, output[1]);
  }

  @Test
  void endOfInputFlushesPendingRecords() throws Exception {
    open(SETTINGS);
    add(0);
    operator.getOperator().finish();
    assertEquals(List.of(List.of(0L)), batches());
  }

  @Test
  void tombstonesAreCountedAndDropped() throws Exception {
    open(SETTINGS);
    operator.processElement(new KafkaRecord("events", 0, 0, 0, Records.utf8("u"), null), 0);
    add(1);
    operator.prepareSnapshotPreBarrier(1);
    assertEquals(List.of(List.of(1L)), batches());
    assertEquals(1, ((Counter) metrics.get("tombstones")).getCount());
  }

  @Test
  void timestampIsTheEarliestWithinBeamsRange() throws Exception {
    open(SETTINGS);
    operator.processElement(Records.event(0, "u", 70), 0);
    operator.processElement(Records.event(1, "u", 50), 0);
    operator.prepareSnapshotPreBarrier(1);
    operator.processElement(Records.event(2, "u", Long.MIN_VALUE), 0);
    operator.prepareSnapshotPreBarrier(2);
    operator.processElement(Records.event(3, "u", Long.MAX_VALUE), 0);
    operator.prepareSnapshotPreBarrier(3);
    assertEquals(
        List.of(
            50L,
            BoundedWindow.TIMESTAMP_MIN_VALUE.getMillis(),
            GlobalWindow.INSTANCE.maxTimestamp().getMillis()),
        operator.extractOutputValues().stream().map(value -> value.getTimestamp().getMillis()).toList());
  }

  @Test
  void restoreWithTheSameNumbersPasses() throws Exception {
    OperatorSubtaskState state = snapshot(SETTINGS);
    operator = harness(Records.events(1, 9, 9, 9));
    operator.initializeState(state);
    operator.open();
  }

  @Test
  void restoreWithOtherUserShardsIsRefusedForGood() throws Exception {
    OperatorSubtaskState state = snapshot(Records.events(16, LINGER_MS, 3, 1 << 20));
    operator = harness(Records.events(32, LINGER_MS, 3, 1 << 20));
    Exception refused = assertThrows(SuppressRestartsException.class, () -> operator.initializeState(state));
    // Unlike Flink, the harness would finish an operator that never opened.
    operator = null;
    assertEquals(
        "setting 'user_shards' is 32, but the restored state was written with 16. It is fixed for the life of a job's"
            + " state: start with 16, or without the savepoint",
        refused.getCause().getMessage());
  }

  private OperatorSubtaskState snapshot(ReadSettings settings) throws Exception {
    open(settings);
    OperatorSubtaskState state = operator.snapshot(1, 1);
    operator.close();
    return state;
  }

  private void open(ReadSettings settings) throws Exception {
    operator = harness(settings);
    operator.open();
  }

  private OneInputStreamOperatorTestHarness<KafkaRecord, WindowedValue<KV<byte[], byte[]>>> harness(
      ReadSettings settings) throws Exception {
    MockEnvironment environment = new MockEnvironmentBuilder().setMetricGroup(taskMetrics()).build();
    OneInputStreamOperatorTestHarness<KafkaRecord, WindowedValue<KV<byte[], byte[]>>> harness =
        new OneInputStreamOperatorTestHarness<>(
            new MicroBatchOperator(settings), KafkaRecordSerializer.INSTANCE, environment);
    KvCoder<byte[], byte[]> coder = KvCoder.of(ByteArrayCoder.of(), ByteArrayCoder.of());
    harness.setup(
        new CoderTypeSerializer<>(WindowedValues.getFullCoder(coder, GlobalWindow.Coder.INSTANCE), false));
    return harness;
  }

  private UnregisteredTaskMetricGroup taskMetrics() {
    return new UnregisteredTaskMetricGroup() {
      @Override
      public InternalOperatorMetricGroup getOrAddOperator(OperatorID id, String name) {
        return metrics;
      }
    };
  }

  private void add(long... offsets) throws Exception {
    for (long offset : offsets) {
      operator.processElement(Records.event(offset, "u"), 0);
    }
  }

  /** The offsets of each batch that was emitted since the last call. */
  private List<List<Long>> batches() {
    List<List<Long>> batches = new ArrayList<>();
    operator
        .extractOutputValues()
        .forEach(value -> batches.add(DecodedBatch.of(value.getValue().getValue()).offsets()));
    operator.getOutput().clear();
    return batches;
  }
}
