package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class LivingWorkersTest {
  private final Set<Long> living = new HashSet<>();
  private long nowMs;
  private final LivingWorkers workers = new LivingWorkers(() -> living, () -> nowMs);

  private void start(long... pids) {
    for (long pid : pids) {
      workers.starts();
      living.add(pid);
    }
    nowMs += LivingWorkers.START_MS;
  }

  @Test
  void aLivingWorkerIsKept() {
    assertEquals(0, workers.generation());
    start(1, 2);
    assertEquals(0, workers.generation());
    assertEquals(0, workers.generation());
  }

  @Test
  void aDeadWorkerIsReplacedOnce() {
    start(1, 2);
    living.remove(1L);
    assertEquals(1, workers.generation());
    assertEquals(1, workers.generation());
    start(3, 4);
    assertEquals(1, workers.generation());
  }

  @Test
  void aWorkerOfAnEarlierGenerationStandsInForNobody() {
    start(1, 2);
    living.remove(1L);
    assertEquals(1, workers.generation());
    start(3, 4);
    living.remove(4L);
    assertEquals(2, workers.generation(), "1 and 2 are earlier ones, of 3 and 4 only 3 lives");
  }

  @Test
  void theEndOfAnEarlierWorkerChangesNothing() {
    start(1, 2);
    living.remove(1L);
    assertEquals(1, workers.generation());
    start(3);
    living.removeAll(List.of(2L));
    assertEquals(1, workers.generation());
  }

  @Test
  void aWorkerThatIsBeingStartedIsNotMissed() {
    workers.starts();
    nowMs += LivingWorkers.START_MS - 1;
    assertEquals(0, workers.generation());
    nowMs += 1;
    assertEquals(1, workers.generation());
  }
}
