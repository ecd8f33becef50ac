package eventtrigger.flink;

import java.util.Properties;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.PTransformTranslator;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.StreamingTranslationContext;
import org.apache.beam.sdk.coders.ByteArrayCoder;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.streaming.api.datastream.DataStream;

/** Translates {@code WriteToTopic} to a Kafka sink whose UID is made of the transform's unique name. */
final class WriteTranslation implements PTransformTranslator<StreamingTranslationContext> {
  private static final String TRANSACTION_TIMEOUT = "transaction.timeout.ms";
  // The maximum of a broker with default settings. The sink's own default of an hour fails on such a broker.
  private static final String DEFAULT_TRANSACTION_TIMEOUT_MS = "900000";

  @Override
  public void translate(String id, RunnerApi.Pipeline pipeline, StreamingTranslationContext context) {
    RunnerApi.PTransform transform = pipeline.getComponents().getTransformsOrThrow(id);
    String name = transform.getUniqueName();
    WriteSettings settings = WriteSettings.parse(name, transform.getSpec().getPayload().toByteArray());
    checkCheckpointing(name, settings, context);

    String input = PCollections.onlyInput(transform);
    PCollections.coderOf(input, ByteArrayCoder.of(), name, pipeline);
    DataStream<WindowedValue<byte[]>> records = context.getDataStreamOrThrow(input);
    records.sinkTo(sink(settings)).name(name).uid(name + "/sink");
  }

  /** Transactions commit with checkpoints: without checkpoints no record would ever become visible. */
  private static void checkCheckpointing(String name, WriteSettings settings, StreamingTranslationContext context) {
    boolean checkpointing = context.getExecutionEnvironment().getCheckpointConfig().isCheckpointingEnabled();
    if (settings.exactlyOnce() && !checkpointing) {
      throw SettingException.of(
          name, "delivery_guarantee", "EXACTLY_ONCE", "AT_LEAST_ONCE, as the job has no --checkpointing_interval");
    }
  }

  private static KafkaSink<WindowedValue<byte[]>> sink(WriteSettings settings) {
    Properties properties = new Properties();
    properties.setProperty(TRANSACTION_TIMEOUT, DEFAULT_TRANSACTION_TIMEOUT_MS);
    properties.putAll(settings.producerConfig());
    KafkaSinkBuilder<WindowedValue<byte[]>> sink =
        KafkaSink.<WindowedValue<byte[]>>builder()
            .setBootstrapServers(properties.getProperty("bootstrap.servers"))
            .setKafkaProducerConfig(properties)
            .setDeliveryGuarantee(settings.deliveryGuarantee())
            .setRecordSerializer(new ProducedRecordSerializer(settings.topic()));
    if (settings.exactlyOnce()) {
      sink.setTransactionalIdPrefix(settings.transactionalIdPrefix());
    }
    return sink.build();
  }
}
