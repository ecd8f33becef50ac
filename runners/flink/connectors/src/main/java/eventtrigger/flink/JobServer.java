package eventtrigger.flink;

import java.io.IOException;
import java.io.PrintStream;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Stream;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkConfDir;
import org.apache.beam.runners.flink.FlinkJobInvoker;
import org.apache.beam.runners.flink.FlinkJobServerDriver;
import org.apache.beam.runners.flink.FlinkJobServerDriver.FlinkServerConfiguration;
import org.apache.beam.runners.flink.FlinkPipelineOptions;
import org.apache.beam.runners.jobsubmission.JobInvocation;
import org.apache.beam.runners.jobsubmission.PortablePipelineRunner;
import org.apache.beam.sdk.io.FileSystems;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.vendor.guava.v32_1_2_jre.com.google.common.util.concurrent.ListeningExecutorService;

/**
 * Beam's job server for Flink with our transforms. Stdout is for the {@link Protocol}, stderr for everything else.
 *
 * <p>This class has no logger: it configures logging before any other class creates a logger.
 */
public final class JobServer {
  /** Free ports; and a job outlives its submission, so the files that Python staged for it have to stay. */
  private static final List<String> DEFAULTS =
      List.of("--job-port=0", "--artifact-port=0", "--expansion-port=-1", "--clean-artifacts-per-job=false");

  private JobServer() {}

  /** Serves until the process is ended. */
  public static void main(String[] args) throws InterruptedException {
    Protocol protocol = new Protocol(System.out);
    logToStderr();
    try {
      FlinkJobServerDriver driver = start(args, protocol);
      Runtime.getRuntime().addShutdownHook(new Thread(driver::stop));
    } catch (IOException | RuntimeException e) {
      System.err.println("The job server does not start: " + e);
      System.exit(1);
    }
    // gRPC's threads are daemons.
    new CountDownLatch(1).await();
  }

  private static void logToStderr() {
    PrintStream stderr = System.err;
    System.setOut(stderr);
    if (System.getProperty("log4j.configurationFile") == null) {
      System.setProperty("log4j.configurationFile", "job-server-log4j.properties");
    }
  }

  private static FlinkJobServerDriver start(String[] args, Protocol protocol) throws IOException {
    FileSystems.setDefaultPipelineOptions(PipelineOptionsFactory.create());
    String[] allArgs = Stream.concat(DEFAULTS.stream(), Stream.of(args)).toArray(String[]::new);
    FlinkServerConfiguration configuration = FlinkJobServerDriver.parseArgs(allArgs);
    FlinkJobServerDriver driver =
        FlinkJobServerDriver.fromConfig(configuration, () -> new Invoker(configuration, protocol));
    protocol.ready(driver.start());
    return driver;
  }

  /** Runs every pipeline with {@link DetachedRunner}. */
  private static final class Invoker extends FlinkJobInvoker {
    private final FlinkServerConfiguration configuration;
    private final Protocol protocol;

    Invoker(FlinkServerConfiguration configuration, Protocol protocol) {
      super(configuration);
      this.configuration = configuration;
      this.protocol = protocol;
    }

    @Override
    protected JobInvocation createJobInvocation(
        String invocationId,
        String retrievalToken,
        ListeningExecutorService executor,
        RunnerApi.Pipeline pipeline,
        FlinkPipelineOptions options,
        PortablePipelineRunner beamsRunner) {
      PortablePipelineRunner runner = new DetachedRunner(options, FlinkConfDir.of(configuration), protocol);
      return super.createJobInvocation(invocationId, retrievalToken, executor, pipeline, options, runner);
    }
  }
}
