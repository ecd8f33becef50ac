package eventtrigger.flink;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkPipelineOptions;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.StreamingTranslationContext;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.runners.jobsubmission.PortablePipelineResult;
import org.apache.beam.runners.jobsubmission.PortablePipelineRunner;
import org.apache.beam.sdk.metrics.MetricsEnvironment;
import org.apache.beam.sdk.options.ExperimentalOptions;
import org.apache.beam.sdk.options.PortablePipelineOptions;
import org.apache.beam.sdk.options.SdkHarnessOptions;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.graph.StreamGraph;

/**
 * Translates a pipeline and submits it to Flink. Unlike Beam's own runner it translates our transforms, stages no files
 * and does not wait for the end of the job.
 */
final class DetachedRunner implements PortablePipelineRunner {
  private static final String PLAN_FILE = "event_trigger_plan_file";

  private final FlinkPipelineOptions options;
  private final String flinkConfDir;
  private final Protocol protocol;

  /** An option {@code flink_conf_dir} of the pipeline takes precedence over {@code flinkConfDir}. */
  DetachedRunner(FlinkPipelineOptions options, String flinkConfDir, Protocol protocol) {
    this.options = options;
    this.flinkConfDir = options.getFlinkConfDir() == null ? flinkConfDir : options.getFlinkConfDir();
    this.protocol = protocol;
  }

  @Override
  public PortablePipelineResult run(RunnerApi.Pipeline pipeline, JobInfo jobInfo) throws Exception {
    MetricsEnvironment.setMetricsSupported(false);
    SdkHarnessOptions.getConfiguredLoggerFromOptions(options.as(SdkHarnessOptions.class));
    StreamExecutionEnvironment flink = translate(pipeline, jobInfo);
    StreamGraph graph = flink.getStreamGraph();
    graph.setJobName(options.getJobName());

    String planFile = ExperimentalOptions.getExperimentValue(options, PLAN_FILE);
    if (planFile != null) {
      Files.writeString(Path.of(planFile), Plan.toJson(graph));
    } else {
      JobClient job = flink.executeAsync(graph);
      protocol.submitted(job.getJobID().toHexString(), options.getJobName());
    }
    return new SubmittedResult();
  }

  private StreamExecutionEnvironment translate(RunnerApi.Pipeline pipeline, JobInfo jobInfo) {
    FlinkStreamingPortablePipelineTranslator translator =
        new FlinkStreamingPortablePipelineTranslator(KafkaTransforms.translations());
    StreamingTranslationContext context =
        translator.createTranslationContext(
            keepsWorkers() ? LivingWorkers.jobInfo(jobInfo) : jobInfo, options, flinkConfDir, List.of());
    translator.translate(context, translator.prepareForTranslation(pipeline));
    return context.getExecutionEnvironment();
  }

  private boolean keepsWorkers() {
    return options.as(PortablePipelineOptions.class).getEnvironmentCacheMillis() > 0;
  }
}
