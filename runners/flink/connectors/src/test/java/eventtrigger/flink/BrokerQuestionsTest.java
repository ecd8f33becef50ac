package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.junit.jupiter.api.Test;

class BrokerQuestionsTest {
  private static final TopicPartition FIRST = new TopicPartition("events", 0);
  private static final TopicPartition SECOND = new TopicPartition("events", 1);
  private static final Set<TopicPartition> BOTH = Set.of(FIRST, SECOND);

  private final FakeBroker broker = new FakeBroker();
  private long nowMs = 100;
  private final BrokerQuestions questions = new BrokerQuestions("events", () -> broker, () -> nowMs);

  @Test
  void answerHasTheTimeOfItsQuestion() {
    broker.end(FIRST, 7);
    broker.partitions = 4;
    questions.ask(Set.of(FIRST));
    nowMs = 200;
    assertEquals(new StreamTime.End(100, 7, 7), questions.end(FIRST));
    assertEquals(new StreamTime.Count(100, 4), questions.count());
  }

  @Test
  void lateAnswerHasTheTimeOfItsQuestion() {
    questions.ask(Set.of(FIRST));
    nowMs = 60_000;
    broker.open.get(FIRST).complete(new Broker.Offsets(9, 8));
    assertEquals(new StreamTime.End(100, 9, 8), questions.end(FIRST));
  }

  @Test
  void partitionThatIsSilentKeepsNoOtherFromBeingAsked() {
    broker.end(SECOND, 1);
    for (int second = 0; second < 3; second++) {
      questions.ask(BOTH);
    }
    assertEquals(1, broker.asked(FIRST));
    assertEquals(3, broker.asked(SECOND));
    assertNull(questions.end(FIRST));
  }

  @Test
  void failedQuestionIsAskedAgain() {
    questions.ask(Set.of(FIRST));
    broker.open.get(FIRST).completeExceptionally(new TimeoutException("away"));
    assertNull(questions.end(FIRST));
    broker.end(FIRST, 3);
    questions.ask(Set.of(FIRST));
    assertEquals(3, questions.end(FIRST).highWatermark());
  }

  @Test
  void brokerThatCannotBeReachedIsTriedAgain() {
    List<Broker> reachable = new ArrayList<>();
    BrokerQuestions later = new BrokerQuestions("events", () -> reachable.get(0), () -> nowMs);
    later.ask(Set.of(FIRST));
    later.close();
    assertNull(later.end(FIRST));
    broker.end(FIRST, 3);
    reachable.add(broker);
    later.ask(Set.of(FIRST));
    assertEquals(3, later.end(FIRST).highWatermark());
    later.close();
    assertTrue(broker.isClosed);
  }
}
