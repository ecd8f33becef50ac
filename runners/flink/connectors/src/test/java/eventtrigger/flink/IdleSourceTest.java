package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.RestOptions;
import org.apache.flink.core.execution.SavepointFormatType;
import org.apache.flink.runtime.clusterframework.ApplicationStatus;
import org.apache.flink.runtime.jobgraph.JobGraph;
import org.apache.flink.runtime.jobmaster.JobResult;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.runtime.testutils.CommonTestUtils;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.DiscardingSink;
import org.apache.flink.streaming.api.functions.source.SourceFunction;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("deprecation")
class IdleSourceTest {

  @Test
  @Timeout(10)
  void itTurnsIdleAndWaitsForCancel() throws Exception {
    IdleSource source = new IdleSource();
    IdleOnly context = new IdleOnly();
    Thread task =
        new Thread(
            () -> {
              try {
                source.run(context);
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
    task.start();
    task.join(100);
    assertTrue(task.isAlive());
    source.cancel();
    task.join();
    assertTrue(context.idle);
  }

  @Test
  @Timeout(40)
  void jobTakesSavepointsAndEndsPromptly(@TempDir Path savepoints) throws Exception {
    JobGraph job = idleJob();
    try (MiniCluster flink = new MiniCluster(oneSlot())) {
      flink.start();
      flink.submitJob(job).get();
      CommonTestUtils.waitForAllTaskRunning(flink, job.getJobID(), false);
      String savepoint =
          flink
              .triggerSavepoint(job.getJobID(), savepoints.toUri().toString(), false, SavepointFormatType.CANONICAL)
              .get(10, TimeUnit.SECONDS);
      assertTrue(Files.exists(Path.of(URI.create(savepoint)).resolve("_metadata")), savepoint);

      flink.cancelJob(job.getJobID()).get();
      JobResult result = flink.requestJobResult(job.getJobID()).get(5, TimeUnit.SECONDS);
      assertEquals(ApplicationStatus.CANCELED, result.getApplicationStatus());
    }
  }

  private static JobGraph idleJob() {
    StreamExecutionEnvironment flink = StreamExecutionEnvironment.getExecutionEnvironment();
    flink.setParallelism(1);
    flink.addSource(new IdleSource(), "idle", KafkaRecordType.INSTANCE).addSink(new DiscardingSink<>());
    return flink.getStreamGraph().getJobGraph();
  }

  private static MiniClusterConfiguration oneSlot() {
    Configuration anyPort = new Configuration();
    anyPort.set(RestOptions.BIND_PORT, "0");
    return new MiniClusterConfiguration.Builder().setConfiguration(anyPort).build();
  }

  /** Accepts only the call that marks the source idle. */
  private static final class IdleOnly implements SourceFunction.SourceContext<KafkaRecord> {
    private volatile boolean idle;

    @Override
    public void markAsTemporarilyIdle() {
      idle = true;
    }

    @Override
    public void collect(KafkaRecord element) {
      throw new AssertionError();
    }

    @Override
    public void collectWithTimestamp(KafkaRecord element, long timestamp) {
      throw new AssertionError();
    }

    @Override
    public void emitWatermark(Watermark mark) {
      throw new AssertionError();
    }

    @Override
    public Object getCheckpointLock() {
      return this;
    }

    @Override
    public void close() {}
  }
}
