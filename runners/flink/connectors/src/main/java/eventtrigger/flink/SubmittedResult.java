package eventtrigger.flink;

import org.apache.beam.model.jobmanagement.v1.JobApi;
import org.apache.beam.runners.jobsubmission.PortablePipelineResult;
import org.apache.beam.sdk.metrics.MetricResults;
import org.joda.time.Duration;

/** The job server's view of a job that Flink has accepted: the submission is done. */
final class SubmittedResult implements PortablePipelineResult {

  @Override
  public State getState() {
    return State.DONE;
  }

  @Override
  public State cancel() {
    throw new UnsupportedOperationException("the job belongs to Flink: cancel it there");
  }

  @Override
  public State waitUntilFinish(Duration duration) {
    return State.DONE;
  }

  @Override
  public State waitUntilFinish() {
    return State.DONE;
  }

  @Override
  public MetricResults metrics() {
    throw new UnsupportedOperationException("the job belongs to Flink: read its metrics there");
  }

  @Override
  public JobApi.MetricResults portableMetrics() {
    return JobApi.MetricResults.getDefaultInstance();
  }
}
