package eventtrigger.flink;

import org.apache.flink.streaming.api.functions.source.SourceFunction;

/**
 * A source that emits nothing, never ends, and never holds the watermark back.
 *
 * <p>It implements Flink's older interface because such a source can be stateless. The coordinator of a newer source
 * always writes state, and then a job could not replace the source by a real topic without allowing non-restored state.
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
