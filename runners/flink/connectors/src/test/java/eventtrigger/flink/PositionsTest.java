package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Map;
import org.apache.flink.metrics.Counter;
import org.apache.flink.runtime.metrics.util.InterceptingOperatorMetricGroup;
import org.apache.kafka.common.TopicPartition;
import org.junit.jupiter.api.Test;

class PositionsTest {
  private static final TopicPartition FIRST = new TopicPartition("events", 0);
  private static final TopicPartition SECOND = new TopicPartition("events", 1);

  private final InterceptingOperatorMetricGroup metrics = new InterceptingOperatorMetricGroup();
  private final Positions positions = new Positions(metrics);

  @Test
  void positionIsUnknownUntilTheReaderHasOne() {
    assertEquals(StreamTime.NONE, positions.of(FIRST));
    positions.startsAt(FIRST, 3);
    assertEquals(3, positions.of(FIRST));
    positions.emittedUpTo(Map.of(FIRST, 9L, SECOND, 0L));
    assertEquals(9, positions.of(FIRST));
    assertEquals(0, positions.of(SECOND));
  }

  @Test
  void recordsThatWereDeletedAreCounted() {
    positions.continuesAt(FIRST, 15, 10);
    positions.continuesAt(SECOND, 8, 6);
    assertEquals(7, count("records_skipped"));
    assertEquals(2, count("position_resets"));
  }

  @Test
  void topicThatWasCreatedAnewIsCountedAndSkipsNothing() {
    positions.continuesAt(FIRST, 0, 500);
    positions.continuesAt(SECOND, -1, 500);
    assertEquals(0, count("records_skipped"));
    assertEquals(2, count("position_resets"));
  }

  private long count(String name) {
    return ((Counter) metrics.get("event_trigger." + name)).getCount();
  }
}
