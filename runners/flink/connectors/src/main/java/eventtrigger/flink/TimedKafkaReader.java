package eventtrigger.flink;

import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.SourceEvent;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.source.reader.RecordsWithSplitIds;
import org.apache.flink.connector.base.source.reader.splitreader.SplitReader;
import org.apache.flink.connector.base.source.reader.synchronization.FutureCompletingBlockingQueue;
import org.apache.flink.connector.kafka.source.metrics.KafkaSourceReaderMetrics;
import org.apache.flink.connector.kafka.source.reader.KafkaSourceReader;
import org.apache.flink.connector.kafka.source.reader.PositionedSplitReader;
import org.apache.flink.connector.kafka.source.reader.fetcher.KafkaSourceFetcherManager;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplit;
import org.apache.flink.connector.kafka.source.split.KafkaPartitionSplitState;
import org.apache.flink.core.io.InputStatus;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.TopicPartition;

/**
 * Flink's Kafka reader, which also emits the watermark of its partitions as {@link StreamTime} decides it.
 *
 * <p>Records, positions and watermarks pass through one thread, so a watermark never overtakes a record: a position is
 * known when the records before it have been emitted. A thread beside it asks brokers and wakes the reader up.
 */
final class TimedKafkaReader extends KafkaSourceReader<KafkaRecord> {
  private static final long WATERMARK_INTERVAL_MS = 200;
  private static final int TICKS_PER_QUESTION = 5;

  private final ReadSettings settings;
  private final FutureCompletingBlockingQueue<RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>>> queue;
  private final Positions positions;
  private final BrokerQuestions questions;
  private final PartitionGauges gauges;
  private final ScheduledExecutorService ticker;

  private final StreamTime time;
  private final Map<TopicPartition, StreamTime.Partition> timed = new ConcurrentHashMap<>();
  private long ticks;
  private volatile boolean isTickDue;
  private boolean hasStarted;
  private boolean hasReportedFirstRecord;
  private long emittedUpToMs = StreamTime.NONE;

  TimedKafkaReader(
      FutureCompletingBlockingQueue<RecordsWithSplitIds<ConsumerRecord<byte[], byte[]>>> queue,
      ReadSettings settings,
      Properties properties,
      SourceReaderContext context,
      KafkaSourceReaderMetrics metrics,
      Positions positions,
      Supplier<SplitReader<ConsumerRecord<byte[], byte[]>, KafkaPartitionSplit>> splitReaders,
      BrokerQuestions questions) {
    super(
        queue,
        new KafkaSourceFetcherManager(queue, splitReaders, finished -> {}),
        new TimedRecordEmitter(System::currentTimeMillis),
        configuration(properties),
        context,
        metrics);
    this.settings = settings;
    this.queue = queue;
    this.positions = positions;
    this.questions = questions;
    this.gauges = new PartitionGauges(context.metricGroup());
    this.time = new StreamTime(settings.idlenessMs());
    this.ticker = Executors.newSingleThreadScheduledExecutor(TimedKafkaReader::tickerThread);
  }

  static TimedKafkaReader of(ReadSettings settings, Properties properties, SourceReaderContext context) {
    String clientId = properties.getProperty("client.id.prefix") + "-time-" + context.getIndexOfSubtask();
    BrokerQuestions questions =
        new BrokerQuestions(
            settings.topic(), () -> new KafkaBroker(properties, clientId), System::currentTimeMillis);
    KafkaSourceReaderMetrics metrics = new KafkaSourceReaderMetrics(context.metricGroup());
    Positions positions = new Positions(context.metricGroup());
    return new TimedKafkaReader(
        new FutureCompletingBlockingQueue<>(),
        settings,
        properties,
        context,
        metrics,
        positions,
        () -> new PositionedSplitReader(properties, context, metrics, positions),
        questions);
  }

  private static Configuration configuration(Properties properties) {
    Configuration configuration = new Configuration();
    properties.stringPropertyNames().forEach(name -> configuration.setString(name, properties.getProperty(name)));
    return configuration;
  }

  private static Thread tickerThread(Runnable ticks) {
    Thread thread = new Thread(ticks, "stream time");
    thread.setDaemon(true);
    return thread;
  }

  @Override
  public void start() {
    hasStarted = true;
    super.start();
    if (settings.kind() == ReadSettings.Kind.EVENTS) {
      ticker.scheduleWithFixedDelay(this::tick, 0, WATERMARK_INTERVAL_MS, TimeUnit.MILLISECONDS);
    }
  }

  /** Runs in the ticker's thread. */
  private void tick() {
    if (ticks++ % TICKS_PER_QUESTION == 0) {
      questions.ask(Set.copyOf(timed.keySet()));
    }
    isTickDue = true;
    queue.notifyAvailable();
  }

  @Override
  protected KafkaPartitionSplitState initializedState(KafkaPartitionSplit split) {
    TopicPartition partition = split.getTopicPartition();
    boolean counts =
        settings.kind() == ReadSettings.Kind.EVENTS && !settings.skippedPartitions().contains(partition.partition());
    // Flink hands out what a checkpoint has before it starts the reader.
    StreamTime.Partition added = time.add(counts, !hasStarted && split.getStartingOffset() >= 0);
    if (counts) {
      timed.put(partition, added);
      gauges.add(partition.partition());
    }
    return new PartitionState(split, added);
  }

  @Override
  public void handleSourceEvents(SourceEvent event) {
    if (event instanceof SourceProgress progress) {
      time.handedOut(progress.partitions());
      if (progress.isStarted()) {
        time.start();
      }
    } else {
      super.handleSourceEvents(event);
    }
  }

  @Override
  public InputStatus pollNext(ReaderOutput<KafkaRecord> output) throws Exception {
    InputStatus status = super.pollNext(output);
    if (isTickDue) {
      isTickDue = false;
      emitWatermark(output);
    }
    return status;
  }

  private void emitWatermark(ReaderOutput<KafkaRecord> output) {
    timed.forEach(
        (partition, partitionTime) -> {
          partitionTime.emittedUpTo(positions.of(partition));
          partitionTime.answered(questions.end(partition));
        });
    time.answered(questions.count());
    long readUpToMs = time.readUpToMs(System.nanoTime() / 1_000_000);
    if (!hasReportedFirstRecord && time.hasDelivered()) {
      hasReportedFirstRecord = true;
      context.sendSourceEventToCoordinator(new SourceProgress.FirstRecord());
    }
    if (readUpToMs > emittedUpToMs) {
      emittedUpToMs = readUpToMs;
      output.emitWatermark(new Watermark(readUpToMs - settings.outOfOrdernessMs() - 1));
    }
    long nowMs = System.currentTimeMillis();
    timed.forEach(
        (partition, partitionTime) ->
            gauges.set(
                partition.partition(),
                partitionTime.readUpToMs(),
                time.hold(partitionTime, nowMs),
                partitionTime.unread(nowMs)));
  }

  @Override
  public void close() throws Exception {
    // Not waited for: a broker that is away must not keep a task from ending.
    ticker.execute(questions::close);
    ticker.shutdown();
    super.close();
  }
}
