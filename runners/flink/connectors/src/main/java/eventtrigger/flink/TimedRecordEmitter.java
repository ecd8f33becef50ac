package eventtrigger.flink;

import java.util.function.LongSupplier;
import org.apache.flink.api.connector.source.SourceOutput;
import org.apache.flink.connector.base.source.reader.RecordEmitter;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplitState;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Emits a consumer's record as it is, tombstones included, and notes it in its partition's time. */
final class TimedRecordEmitter
    implements RecordEmitter<ConsumerRecord<byte[], byte[]>, KafkaRecord, KafkaPartitionSplitState> {
  private final LongSupplier now;
  private long lastNowMs;

  TimedRecordEmitter(LongSupplier now) {
    this.now = now;
  }

  @Override
  public void emitRecord(
      ConsumerRecord<byte[], byte[]> record, SourceOutput<KafkaRecord> output, KafkaPartitionSplitState split) {
    // A time in the future must not move the watermark there. Most records are older than the last look at the clock.
    long timestampMs = record.timestamp();
    if (timestampMs > lastNowMs) {
      lastNowMs = now.getAsLong();
      timestampMs = Math.min(timestampMs, lastNowMs);
    }
    output.collect(
        new KafkaRecord(
            record.topic(), record.partition(), record.offset(), record.timestamp(), record.key(), record.value()),
        timestampMs);
    split.setCurrentOffset(record.offset() + 1);
    ((PartitionState) split).time.delivered(timestampMs);
  }
}
