package eventtrigger.flink;

import java.time.Duration;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.PTransformTranslator;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.StreamingTranslationContext;
import org.apache.beam.runners.flink.translation.types.CoderTypeInformation;
import org.apache.beam.sdk.coders.ByteArrayCoder;
import org.apache.beam.sdk.coders.KvCoder;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * Translates {@code ReadEvents} and {@code ReadControl} to a Kafka source, or an idle one, with the micro-batch
 * operator chained behind it. Both operators have UIDs made of the transform's unique name.
 */
final class ReadTranslation implements PTransformTranslator<StreamingTranslationContext> {
  private static final KvCoder<byte[], byte[]> OUTPUT = KvCoder.of(ByteArrayCoder.of(), ByteArrayCoder.of());

  private final ReadSettings.Kind kind;

  ReadTranslation(ReadSettings.Kind kind) {
    this.kind = kind;
  }

  @Override
  public void translate(String id, RunnerApi.Pipeline pipeline, StreamingTranslationContext context) {
    RunnerApi.PTransform transform = pipeline.getComponents().getTransformsOrThrow(id);
    String name = transform.getUniqueName();
    ReadSettings settings = ReadSettings.parse(name, kind, transform.getSpec().getPayload().toByteArray());
    StreamExecutionEnvironment flink = context.getExecutionEnvironment();
    checkMaxParallelism(name, settings, flink);

    DataStream<KafkaRecord> records =
        settings.topics().isEmpty() ? idleSource(name, flink) : kafkaSource(name, settings, flink);
    String output = PCollections.onlyOutput(transform);
    CoderTypeInformation<WindowedValue<KV<byte[], byte[]>>> type =
        PCollections.typeOf(output, OUTPUT, name, pipeline, context);
    SingleOutputStreamOperator<WindowedValue<KV<byte[], byte[]>>> batches =
        records
            .transform(name + "/batch", type, new MicroBatchOperator(settings))
            .uid(name + "/batch")
            .setParallelism(records.getParallelism())
            // The records of a micro-batch have waited already: send it at once, not with the next buffer flush.
            .setBufferTimeout(0);
    context.addDataStream(output, batches);
  }

  private static void checkMaxParallelism(String name, ReadSettings settings, StreamExecutionEnvironment flink) {
    int job = flink.getMaxParallelism();
    if (settings.maxParallelism() != job) {
      String allowed = job > 0 ? ", " + job : ", which is not set";
      throw SettingException.of(
          name, "max_parallelism", settings.maxParallelism(), "the job's --max_parallelism" + allowed);
    }
  }

  private static DataStream<KafkaRecord> kafkaSource(
      String name, ReadSettings settings, StreamExecutionEnvironment flink) {
    return flink
        .fromSource(new TimedKafkaSource(settings), watermarks(settings), name, KafkaRecordType.INSTANCE)
        .uid(name + "/source")
        .setParallelism(flink.getParallelism());
  }

  /** The idle source has a UID of its own, so that Flink never restores it with the Kafka source's state. */
  @SuppressWarnings("deprecation")
  private static DataStream<KafkaRecord> idleSource(String name, StreamExecutionEnvironment flink) {
    return flink.addSource(new IdleSource(), name, KafkaRecordType.INSTANCE).uid(name + "/idle").setParallelism(1);
  }

  private static WatermarkStrategy<KafkaRecord> watermarks(ReadSettings settings) {
    return switch (settings.kind()) {
      // The source's readers emit the watermark.
      case EVENTS -> WatermarkStrategy.noWatermarks();
      // A silent control topic must not advance the watermark of the events.
      case CONTROL -> WatermarkStrategy.<KafkaRecord>forBoundedOutOfOrderness(
              Duration.ofMillis(settings.outOfOrdernessMs()))
          .withIdleness(Duration.ofMillis(settings.idlenessMs()));
    };
  }
}
