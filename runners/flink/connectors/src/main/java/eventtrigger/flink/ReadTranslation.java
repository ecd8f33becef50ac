package eventtrigger.flink;

import java.time.Duration;
import java.util.Properties;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.PTransformTranslator;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.StreamingTranslationContext;
import org.apache.beam.runners.flink.translation.types.CoderTypeInformation;
import org.apache.beam.sdk.coders.ByteArrayCoder;
import org.apache.beam.sdk.coders.KvCoder;
import org.apache.beam.sdk.values.KV;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.kafka.clients.consumer.OffsetResetStrategy;

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
    Properties properties = new Properties();
    properties.putAll(settings.consumerConfig());
    properties.setProperty("commit.offsets.on.checkpoint", "true");
    KafkaSource<KafkaRecord> source =
        KafkaSource.<KafkaRecord>builder()
            .setProperties(properties)
            .setTopics(settings.topics())
            .setGroupId(settings.groupId())
            .setStartingOffsets(startingOffsets(settings))
            .setDeserializer(new KafkaRecordDeserializer())
            .build();
    return flink
        .fromSource(source, watermarks(settings), name, KafkaRecordType.INSTANCE)
        .uid(name + "/source")
        .setParallelism(flink.getParallelism());
  }

  /** The idle source has a UID of its own, so that Flink never restores it with the Kafka source's state. */
  @SuppressWarnings("deprecation")
  private static DataStream<KafkaRecord> idleSource(String name, StreamExecutionEnvironment flink) {
    return flink.addSource(new IdleSource(), name, KafkaRecordType.INSTANCE).uid(name + "/idle").setParallelism(1);
  }

  private static OffsetsInitializer startingOffsets(ReadSettings settings) {
    return switch (settings.startingOffsets()) {
      case COMMITTED -> OffsetsInitializer.committedOffsets(OffsetResetStrategy.EARLIEST);
      case EARLIEST -> OffsetsInitializer.earliest();
      case LATEST -> OffsetsInitializer.latest();
      case TIMESTAMP -> OffsetsInitializer.timestamp(settings.startingTimestampMs());
    };
  }

  private static WatermarkStrategy<KafkaRecord> watermarks(ReadSettings settings) {
    // A timestamp in the future must not move the watermark there: it counts as the current time.
    WatermarkStrategy<KafkaRecord> strategy =
        switch (settings.kind()) {
          case EVENTS -> WatermarkStrategy.forGenerator(
              context ->
                  new ProgressWatermarks(
                      settings.outOfOrdernessMs(),
                      settings.idlenessMs(),
                      context.getInputActivityClock(),
                      System::currentTimeMillis));
          // A silent control topic must not advance the watermark of the events.
          case CONTROL -> WatermarkStrategy.<KafkaRecord>forBoundedOutOfOrderness(
                  Duration.ofMillis(settings.outOfOrdernessMs()))
              .withIdleness(Duration.ofMillis(settings.idlenessMs()));
        };
    return strategy.withTimestampAssigner((record, time) -> Math.min(record.timestampMs(), System.currentTimeMillis()));
  }
}
