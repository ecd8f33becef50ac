package eventtrigger.flink;

import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CompletionStage;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListOffsetsResult;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;

/** Asks brokers through an Admin client with the properties of a consumer. */
final class KafkaBroker implements Broker {
  // A question to a broker that is away keeps its partitions from being asked again for so long. Not shorter: on a
  // starved machine an answer takes seconds.
  private static final int TIMEOUT_MS = 10_000;
  private static final Duration CLOSE_TIMEOUT = Duration.ofMillis(200);

  private final Admin admin;
  private final boolean readsCommitted;

  KafkaBroker(Properties consumer, String clientId) {
    admin = Admin.create(adminProperties(consumer, clientId));
    String isolation = consumer.getProperty(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_uncommitted");
    readsCommitted = isolation.toLowerCase(Locale.ROOT).equals("read_committed");
  }

  private static Properties adminProperties(Properties consumer, String clientId) {
    Properties properties = new Properties();
    properties.putAll(consumer);
    properties.setProperty(AdminClientConfig.CLIENT_ID_CONFIG, clientId);
    return properties;
  }

  @Override
  public Map<TopicPartition, CompletionStage<Offsets>> ends(Collection<TopicPartition> partitions) {
    ListOffsetsResult ends = latest(partitions, IsolationLevel.READ_UNCOMMITTED);
    // A reader of uncommitted records gets those of open transactions: for it, the log ends where it ends.
    ListOffsetsResult stable = readsCommitted ? latest(partitions, IsolationLevel.READ_COMMITTED) : ends;
    Map<TopicPartition, CompletionStage<Offsets>> answers = new HashMap<>();
    for (TopicPartition partition : partitions) {
      answers.put(
          partition,
          ends.partitionResult(partition)
              .toCompletionStage()
              .thenCombine(
                  stable.partitionResult(partition).toCompletionStage(),
                  (end, lastStable) -> new Offsets(end.offset(), lastStable.offset())));
    }
    return answers;
  }

  private ListOffsetsResult latest(Collection<TopicPartition> partitions, IsolationLevel isolation) {
    Map<TopicPartition, OffsetSpec> specs =
        partitions.stream().collect(Collectors.toMap(partition -> partition, partition -> OffsetSpec.latest()));
    return admin.listOffsets(specs, new ListOffsetsOptions(isolation).timeoutMs(TIMEOUT_MS));
  }

  @Override
  public CompletionStage<Integer> partitionCount(String topic) {
    return admin
        .describeTopics(List.of(topic), new DescribeTopicsOptions().timeoutMs(TIMEOUT_MS))
        .topicNameValues()
        .get(topic)
        .toCompletionStage()
        .thenApply(description -> description.partitions().size());
  }

  @Override
  public void close() {
    admin.close(CLOSE_TIMEOUT);
  }
}
