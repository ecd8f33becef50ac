package eventtrigger.flink;

import java.util.HashSet;
import java.util.Set;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import org.apache.beam.model.fnexecution.v1.ProvisionApi.ProvisionInfo;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Struct;

/**
 * Notices, when a task starts in this TaskManager, that a Python worker has died. Workers that the runner keeps after a
 * failure ({@code environment_cache_millis}) belong to a job id. The runner gives a dead one to the next attempt as well,
 * which fails at once, and so on for ever. So the runner gets another job id then, for which it starts new workers; what
 * it has kept for the old id it drops when the time is over.
 */
final class LivingWorkers {
  /** A process that is being started is not missed for so long. */
  static final long START_MS = 5_000;

  private static final LivingWorkers OF_THIS_PROCESS =
      new LivingWorkers(LivingWorkers::workers, System::currentTimeMillis);

  private final Supplier<Set<Long>> living;
  private final LongSupplier now;
  private final Set<Long> earlier = new HashSet<>();
  private int generation;
  private int started;
  private long lastStartMs;

  LivingWorkers(Supplier<Set<Long>> living, LongSupplier now) {
    this.living = living;
    this.now = now;
  }

  /** The job's info, with an id that changes when a worker of the TaskManager that asks for it has died. */
  static JobInfo jobInfo(JobInfo info) {
    return new Info(info);
  }

  synchronized void starts() {
    started++;
    lastStartMs = now.getAsLong();
  }

  /** How often workers have been replaced: workers of the same generation live, as far as is known. */
  synchronized int generation() {
    Set<Long> current = new HashSet<>(living.get());
    current.removeAll(earlier);
    if (current.size() < started && now.getAsLong() - lastStartMs >= START_MS) {
      earlier.addAll(current);
      started = 0;
      generation++;
    }
    return generation;
  }

  private static Set<Long> workers() {
    return ProcessHandle.current()
        .children()
        .filter(process -> process.info().commandLine().orElse("").contains("--provision_endpoint="))
        .map(ProcessHandle::pid)
        .collect(Collectors.toSet());
  }

  private static final class Info extends JobInfo {
    private static final long serialVersionUID = 1;

    private final JobInfo info;
    // The runner asks an attempt's info several times and must get the same answer.
    private transient String id;

    Info(JobInfo info) {
      this.info = info;
    }

    @Override
    public synchronized String jobId() {
      if (id == null) {
        int generation = OF_THIS_PROCESS.generation();
        id = generation == 0 ? info.jobId() : info.jobId() + "-" + generation;
      }
      return id;
    }

    /** The runner calls this once for each worker that it starts. */
    @Override
    public ProvisionInfo toProvisionInfo() {
      OF_THIS_PROCESS.starts();
      return info.toProvisionInfo();
    }

    @Override
    public String jobName() {
      return info.jobName();
    }

    @Override
    public String retrievalToken() {
      return info.retrievalToken();
    }

    @Override
    public Struct pipelineOptions() {
      return info.pipelineOptions();
    }
  }
}
