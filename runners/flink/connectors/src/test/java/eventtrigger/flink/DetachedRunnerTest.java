package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkPipelineOptions;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.sdk.coders.ByteArrayCoder;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.coders.KvCoder;
import org.apache.beam.sdk.coders.StringUtf8Coder;
import org.apache.beam.sdk.options.ExperimentalOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.util.construction.Environments;
import org.apache.beam.sdk.util.construction.PTransformTranslation;
import org.apache.beam.sdk.util.construction.SdkComponents;
import org.apache.beam.sdk.values.WindowingStrategy;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.ByteString;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Struct;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Translates pipelines of bare protos, as Python sends them, into plan files. */
class DetachedRunnerTest {
  private static final Coder<?> BATCHES = KvCoder.of(ByteArrayCoder.of(), ByteArrayCoder.of());

  @TempDir Path folder;
  private final ByteArrayOutputStream protocol = new ByteArrayOutputStream();
  private final FlinkPipelineOptions options = options();
  private final SdkComponents sdk = SdkComponents.create();
  private final RunnerApi.Components.Builder components = RunnerApi.Components.newBuilder();

  @Test
  void readIsAKafkaSourceChainedToItsBatchOperator() throws Exception {
    add("ReadEvents", KafkaTransforms.READ_EVENTS, read("\"events\"", 128), BATCHES);
    JsonNode plan = plan();
    assertEquals(List.of("ReadEvents/source", "ReadEvents/batch"), texts(plan.at("/vertices/0/operators")));
    assertEquals("MicroBatchOperator", plan.at("/nodes/1/operator").textValue());
    assertEquals(3, plan.at("/nodes/0/parallelism").intValue());
    assertEquals(3, plan.at("/nodes/1/parallelism").intValue());
  }

  @Test
  void controlWithoutTopicIsOneIdleSubtaskUnderAUidOfItsOwn() throws Exception {
    add("ReadControl", KafkaTransforms.READ_CONTROL, read("null", 128), BATCHES);
    JsonNode plan = plan();
    assertEquals(List.of("ReadControl/idle", "ReadControl/batch"), texts(plan.at("/vertices/0/operators")));
    assertEquals(1, plan.at("/nodes/1/parallelism").intValue());
  }

  @Test
  void rulesTopicAloneIsAKafkaSourceToo() throws Exception {
    String payload = read("null", 128).replace("\"rules_topic\": null", "\"rules_topic\": \"rules\"");
    add("ReadControl", KafkaTransforms.READ_CONTROL, payload, BATCHES);
    assertEquals(List.of("ReadControl/source", "ReadControl/batch"), texts(plan().at("/vertices/0/operators")));
  }

  @Test
  void writeIsAKafkaSink() throws Exception {
    addWrite("AT_LEAST_ONCE", "null");
    List<String> uids = plan().get("nodes").findValuesAsText("uid");
    assertTrue(uids.contains("WriteActions/sink"), uids.toString());
  }

  @Test
  void otherMaxParallelismThanTheJobsIsRefused() {
    add("ReadEvents", KafkaTransforms.READ_EVENTS, read("\"events\"", 64), BATCHES);
    Exception refused = assertThrows(SettingException.class, this::plan);
    assertEquals(
        "ReadEvents: setting 'max_parallelism' is 64, allowed: the job's --max_parallelism, 128",
        refused.getMessage());
  }

  @Test
  void exactlyOnceWithoutCheckpointsIsRefused() {
    addWrite("EXACTLY_ONCE", "\"prefix\"");
    Exception refused = assertThrows(SettingException.class, this::plan);
    assertTrue(refused.getMessage().contains("'delivery_guarantee' is EXACTLY_ONCE"), refused.getMessage());
  }

  @Test
  void exactlyOnceWithCheckpointsPasses() throws Exception {
    options.setCheckpointingInterval(1000L);
    addWrite("EXACTLY_ONCE", "\"prefix\"");
    plan();
  }

  @Test
  void otherCodersThanBytesAreRefused() {
    Coder<?> other = KvCoder.of(StringUtf8Coder.of(), ByteArrayCoder.of());
    add("ReadEvents", KafkaTransforms.READ_EVENTS, read("\"events\"", 128), other);
    Exception refused = assertThrows(IllegalArgumentException.class, this::plan);
    assertTrue(refused.getMessage().startsWith("ReadEvents: its PCollection is coded with"), refused.getMessage());
  }

  @Test
  void planSubmitsNothing() throws Exception {
    add("ReadEvents", KafkaTransforms.READ_EVENTS, read("\"events\"", 128), BATCHES);
    plan();
    assertEquals(0, protocol.size());
  }

  private JsonNode plan() throws Exception {
    Path file = folder.resolve("plan.json");
    ExperimentalOptions.addExperiment(options.as(ExperimentalOptions.class), "event_trigger_plan_file=" + file);
    new DetachedRunner(options, null, new Protocol(new PrintStream(protocol)))
        .run(pipeline(), JobInfo.create("id", "name", "", Struct.getDefaultInstance()));
    return new ObjectMapper().readTree(Files.readAllBytes(file));
  }

  private static FlinkPipelineOptions options() {
    FlinkPipelineOptions options = PipelineOptionsFactory.as(FlinkPipelineOptions.class);
    options.setFlinkMaster("localhost:1");
    options.setStreaming(true);
    options.setParallelism(3);
    options.setMaxParallelism(128);
    return options;
  }

  private static String read(String topic, int maxParallelism) {
    return String.format(
        """
        {"topic": %s, "rules_topic": null, "consumer_config": {"bootstrap.servers": "localhost:1"}, "group_id": "g",
         "starting_offsets": "latest", "starting_timestamp_ms": null, "user_shards": 16, "max_parallelism": %d,
         "user_key": "record", "linger_ms": 5, "max_batch_records": 10, "max_batch_bytes": 1000,
         "watermark_out_of_orderness_ms": 0, "watermark_idleness_ms": 1,
         "partition_discovery_ms": 30000, "skip_dead_partitions": []}""",
        topic, maxParallelism);
  }

  private void addWrite(String guarantee, String prefix) {
    add("Impulse", PTransformTranslation.IMPULSE_TRANSFORM_URN, "", ByteArrayCoder.of());
    String payload =
        String.format(
            """
            {"topic": "out", "delivery_guarantee": "%s", "transactional_id_prefix": %s,
             "producer_config": {"bootstrap.servers": "localhost:1"}}""",
            guarantee, prefix);
    components.putTransforms(
        "WriteActions",
        transform("WriteActions", KafkaTransforms.WRITE_TO_TOPIC, payload).putInputs("in", "Impulse.out").build());
  }

  private void add(String name, String urn, String payload, Coder<?> output) {
    sdk.registerEnvironment(Environments.createDockerEnvironment("none"));
    try {
      components.putPcollections(
          name + ".out",
          RunnerApi.PCollection.newBuilder()
              .setUniqueName(name + ".out")
              .setCoderId(sdk.registerCoder(output))
              .setWindowingStrategyId(sdk.registerWindowingStrategy(WindowingStrategy.globalDefault()))
              .setIsBounded(RunnerApi.IsBounded.Enum.UNBOUNDED)
              .build());
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
    components.putTransforms(name, transform(name, urn, payload).putOutputs("out", name + ".out").build());
  }

  private static RunnerApi.PTransform.Builder transform(String name, String urn, String payload) {
    return RunnerApi.PTransform.newBuilder()
        .setUniqueName(name)
        .setSpec(
            RunnerApi.FunctionSpec.newBuilder().setUrn(urn).setPayload(ByteString.copyFromUtf8(payload)));
  }

  private RunnerApi.Pipeline pipeline() {
    return RunnerApi.Pipeline.newBuilder()
        .addAllRootTransformIds(components.getTransformsMap().keySet())
        .setComponents(sdk.toComponents().toBuilder().mergeFrom(components.build()))
        .build();
  }

  private static List<String> texts(JsonNode array) {
    return new ObjectMapper().convertValue(array, new TypeReference<>() {});
  }
}
