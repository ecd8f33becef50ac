package eventtrigger.flink;

import java.io.IOException;
import java.util.Properties;
import java.util.UUID;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.api.java.typeutils.ResultTypeQueryable;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.KafkaSourceEnumState;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Flink's Kafka source with the same state, whose readers are {@link TimedKafkaReader}s. */
final class TimedKafkaSource
    implements Source<KafkaRecord, KafkaPartitionSplit, KafkaSourceEnumState>, ResultTypeQueryable<KafkaRecord> {
  private final ReadSettings settings;
  private final Properties properties;
  private final KafkaSource<KafkaRecord> kafka;

  TimedKafkaSource(ReadSettings settings) {
    this.settings = settings;
    this.properties = properties(settings);
    this.kafka =
        KafkaSource.<KafkaRecord>builder()
            .setProperties(properties)
            .setTopics(settings.topics())
            .setStartingOffsets(new StartingOffsets(settings.startingOffsets(), settings.startingTimestampMs()))
            .setDeserializer(new KafkaRecordDeserializer())
            .build();
  }

  /** What Flink's builder would add is set here, because readers are made without it. */
  private static Properties properties(ReadSettings settings) {
    Properties properties = new Properties();
    properties.putAll(settings.consumerConfig());
    properties.setProperty(ConsumerConfig.GROUP_ID_CONFIG, settings.groupId());
    properties.setProperty(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    properties.setProperty(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    properties.setProperty(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");
    // A position out of range is no matter for the consumer: the reader counts what is skipped.
    properties.setProperty(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none");
    properties.setProperty("commit.offsets.on.checkpoint", "true");
    properties.setProperty("partition.discovery.interval.ms", String.valueOf(settings.partitionDiscoveryMs()));
    // A reader that is cut off waits for the broker when it ends, for half a minute by default; its task does not.
    properties.putIfAbsent("source.reader.close.timeout", "5000");
    // Two sources of a job may have readers in one process, and a process has a client's id once.
    properties.putIfAbsent("client.id.prefix", settings.groupId() + "-" + UUID.randomUUID());
    return properties;
  }

  @Override
  public Boundedness getBoundedness() {
    return kafka.getBoundedness();
  }

  @Override
  public SourceReader<KafkaRecord, KafkaPartitionSplit> createReader(SourceReaderContext context) {
    return TimedKafkaReader.of(settings, properties, context);
  }

  @Override
  public SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> createEnumerator(
      SplitEnumeratorContext<KafkaPartitionSplit> context) {
    return new ProgressEnumerator(settings.topics(), context, kafka::createEnumerator);
  }

  @Override
  public SplitEnumerator<KafkaPartitionSplit, KafkaSourceEnumState> restoreEnumerator(
      SplitEnumeratorContext<KafkaPartitionSplit> context, KafkaSourceEnumState state) throws IOException {
    return new ProgressEnumerator(settings.topics(), context, wrapped -> kafka.restoreEnumerator(wrapped, state));
  }

  @Override
  public SimpleVersionedSerializer<KafkaPartitionSplit> getSplitSerializer() {
    return kafka.getSplitSerializer();
  }

  @Override
  public SimpleVersionedSerializer<KafkaSourceEnumState> getEnumeratorCheckpointSerializer() {
    return kafka.getEnumeratorCheckpointSerializer();
  }

  @Override
  public TypeInformation<KafkaRecord> getProducedType() {
    return KafkaRecordType.INSTANCE;
  }
}
