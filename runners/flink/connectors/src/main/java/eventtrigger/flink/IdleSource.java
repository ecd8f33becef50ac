package eventtrigger.flink;

import org.apache.flink.streaming.api.functions.source.SourceFunction;

/**
 * A source that never says anything, never ends, and never holds the watermark back.
 *
 * <p>It is one of Flink's older kind because those can be stateless: the coordinator of a newer one always writes
 * state, and then a job could not exchange it for a real topic without allowing non-restored state.
 */
@SuppressWarnings("deprecation")
final class IdleSource implements SourceFunction<KafkaRecord> {
  private boolean cancelled;

  @Override
  public void run(SourceContext<KafkaRecord> context) throws InterruptedException {
    context.markAsTemporarilyIdle();
    awaitCancel();
  }

  private synchronized void awaitCancel() throws InterruptedException {
    while (!cancelled) {
      wait();
    }
  }

  @Override
  public synchronized void cancel() {
    cancelled = true;
    notifyAll();
  }
}
