package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

/** Times of records and questions are those of the clock, so that a test needs one clock. */
class StreamTimeTest {
  private static final long IDLENESS_MS = 10_000;
  private static final long START_MS = 1_700_000_000_000L;
  private static final long UNKNOWN = StreamTime.NONE;

  private final StreamTime time = new StreamTime(IDLENESS_MS);
  private final StreamTime.Partition partition = time.add(true, false);
  private long nowMs = START_MS;
  private int brokerPartitions = 1;

  StreamTimeTest() {
    time.handedOut(1);
  }

  @Test
  void theNewestRecordIsHowFarAPartitionHasBeenRead() {
    deliver(partition, START_MS - 5000, 1);
    deliver(partition, START_MS - 9000, 2);
    endIs(partition, 500);
    assertEquals(START_MS - 5000, readUpTo());
  }

  @Test
  void silenceProvesNothing() {
    deliver(partition, START_MS, 1);
    pass(3_600_000);
    count();
    assertEquals(START_MS, readUpTo());
  }

  @Test
  void silenceAtTheEndOfTheLogIsReadUpToTheQuestion() {
    deliver(partition, START_MS, 1);
    pass(60_000);
    endIs(partition, 1);
    pass(500);
    assertEquals(START_MS + 60_000 - IDLENESS_MS, readUpTo());
  }

  @Test
  void endOfTheLogWithoutSilenceIsNoProgress() {
    // A mirror writes old record times and is always at the end of the log.
    for (int offset = 1; offset < 50; offset++) {
      deliver(partition, START_MS - 86_400_000 + offset, offset);
      endIs(partition, offset);
      assertEquals(START_MS - 86_400_000 + offset, readUpTo());
      pass(1000);
    }
  }

  @Test
  void afterARestoreTheTimeGoesOnWithoutANewRecord() {
    StreamTime restored = new StreamTime(IDLENESS_MS);
    restored.handedOut(1);
    StreamTime.Partition atTheEnd = restored.add(true, true);
    atTheEnd.emittedUpTo(7);
    atTheEnd.answered(new StreamTime.End(START_MS, 7, 7));
    restored.answered(new StreamTime.Count(START_MS, 1));
    assertEquals(UNKNOWN, restored.readUpToMs(START_MS));
    // A mirror that writes old record times may only pause.
    assertEquals(UNKNOWN, restored.readUpToMs(START_MS + IDLENESS_MS - 1));
    atTheEnd.answered(new StreamTime.End(START_MS + IDLENESS_MS, 7, 7));
    restored.answered(new StreamTime.Count(START_MS + IDLENESS_MS, 1));
    assertEquals(START_MS, restored.readUpToMs(START_MS + IDLENESS_MS));
  }

  @Test
  void aRestoredPartitionWithUnreadRecordsHoldsTheTime() {
    StreamTime restored = new StreamTime(IDLENESS_MS);
    restored.handedOut(2);
    StreamTime.Partition behind = restored.add(true, true);
    StreamTime.Partition live = restored.add(true, true);
    for (long atMs = START_MS; atMs < START_MS + 60_000; atMs += 1000) {
      behind.emittedUpTo(7);
      behind.answered(new StreamTime.End(atMs, 8, 8));
      live.delivered(atMs);
      restored.answered(new StreamTime.Count(atMs, 2));
      assertEquals(UNKNOWN, restored.readUpToMs(atMs));
    }
    behind.delivered(START_MS + 5);
    assertEquals(START_MS + 5, restored.readUpToMs(START_MS + 60_000));
  }

  @Test
  void silenceBeginsAfterTheLastRecord() {
    deliver(partition, START_MS, 1);
    pass(IDLENESS_MS - 1);
    endIs(partition, 1);
    assertEquals(START_MS, readUpTo());
    pass(1);
    endIs(partition, 1);
    pass(10_000);
    endIs(partition, 1);
    assertEquals(START_MS + 10_000, readUpTo());
  }

  @Test
  void offsetsBehindThePositionAreUnreadUntilBrokersStopAnswering() {
    assertEquals(StreamTime.UNKNOWN, partition.unread(nowMs));
    deliver(partition, START_MS, 3);
    assertEquals(StreamTime.UNKNOWN, partition.unread(nowMs));
    endIs(partition, 10);
    assertEquals(7, partition.unread(nowMs));
    pass(5000);
    assertEquals(7, partition.unread(nowMs));
    pass(1);
    assertEquals(StreamTime.UNKNOWN, partition.unread(nowMs));
    endIs(partition, 2);
    assertEquals(0, partition.unread(nowMs));
  }

  @Test
  void recordsThatWaitHoldTheTime() {
    deliver(partition, START_MS, 1);
    pass(60_000);
    endIs(partition, 2);
    assertEquals(START_MS, readUpTo());
    assertEquals(StreamTime.Hold.NOT_READ_TO_THE_END, hold());
  }

  @Test
  void fetchedRecordsHoldTheTimeUntilTheyAreEmitted() {
    deliver(partition, START_MS, 1);
    pass(60_000);
    endIs(partition, 3);
    long askedAtMs = nowMs;
    pass(60_000);
    assertEquals(START_MS, readUpTo());
    partition.delivered(START_MS + 1);
    assertEquals(START_MS + 1, readUpTo());
    partition.emittedUpTo(3);
    pass(IDLENESS_MS);
    assertEquals(askedAtMs - IDLENESS_MS, readUpTo());
  }

  @Test
  void openTransactionHoldsTheTime() {
    deliver(partition, START_MS, 5);
    pass(60_000);
    ends(partition, 8, 5);
    assertEquals(START_MS, readUpTo());
    assertEquals(StreamTime.Hold.OPEN_TRANSACTION, hold());
  }

  @Test
  void abortedTransactionEndsBehindItsMarker() {
    deliver(partition, START_MS, 5);
    ends(partition, 8, 5);
    pass(60_000);
    // Three records and the marker: the reader gets nothing, and its position passes them.
    endIs(partition, 9);
    assertEquals(START_MS, readUpTo());
    partition.emittedUpTo(9);
    assertEquals(nowMs - IDLENESS_MS, readUpTo());
  }

  @Test
  void transactionMarkersAreNoRecordsThatWait() {
    deliver(partition, START_MS, 1);
    partition.emittedUpTo(2);
    pass(60_000);
    endIs(partition, 2);
    assertEquals(nowMs - IDLENESS_MS, readUpTo());
  }

  @Test
  void positionBehindTheEndIsNoConfirmation() {
    // A topic that was deleted and created anew, or a log that was cut off.
    deliver(partition, START_MS, 500);
    pass(60_000);
    endIs(partition, 10);
    assertEquals(START_MS, readUpTo());
  }

  @Test
  void unknownPositionHoldsTheTime() {
    time.start();
    endIs(partition, 0);
    assertEquals(UNKNOWN, readUpTo());
  }

  @Test
  void brokerThatDoesNotAnswerHoldsTheTime() {
    deliver(partition, START_MS, 1);
    pass(30_000);
    endIs(partition, 1);
    assertEquals(START_MS + 20_000, readUpTo());
    pass(60_000);
    count();
    assertEquals(START_MS + 20_000, readUpTo());
    assertEquals(StreamTime.Hold.NO_ANSWER, hold());
  }

  @Test
  void answersThatComeLateCountFromTheirQuestion() {
    deliver(partition, START_MS, 1);
    partition.emittedUpTo(1);
    count();
    long askedAtMs = nowMs + 20_000;
    pass(120_000);
    count();
    partition.answered(new StreamTime.End(askedAtMs, 1, 1));
    assertEquals(askedAtMs - IDLENESS_MS, readUpTo());
  }

  @Test
  void partitionThatDeliveredNothingHoldsUntilItIsKnownToBeEmpty() {
    StreamTime.Partition second = add();
    deliver(partition, START_MS, 1);
    count();
    assertEquals(UNKNOWN, readUpTo());
    second.emittedUpTo(7);
    endIs(second, 7);
    assertEquals(START_MS, readUpTo());
  }

  @Test
  void partitionWhoseRecordsWaitAtTheStartHolds() {
    StreamTime.Partition second = add();
    deliver(partition, START_MS, 1);
    second.emittedUpTo(7);
    endIs(second, 9);
    pass(3_600_000);
    endIs(partition, 1);
    assertEquals(UNKNOWN, readUpTo());
  }

  @Test
  void emptyPartitionThatIsCutOffHoldsAtItsLastAnswer() {
    StreamTime.Partition second = add();
    second.emittedUpTo(7);
    endIs(second, 7);
    long askedAtMs = nowMs;
    for (int offset = 1; offset < 100; offset++) {
      pass(1000);
      deliver(partition, nowMs, offset);
      endIs(partition, offset);
      assertEquals(askedAtMs, readUpTo());
    }
  }

  @Test
  void emptyPartitionIsNotReadUpToNow() {
    StreamTime.Partition second = add();
    second.emittedUpTo(0);
    deliver(partition, START_MS - 86_400_000, 1);
    pass(60_000);
    endIs(second, 0);
    endIs(partition, 500);
    assertEquals(START_MS - 86_400_000, readUpTo());
    // Its first record may be as old as that of the other.
    deliver(second, START_MS - 90_000_000, 1);
    assertEquals(START_MS - 90_000_000, readUpTo());
  }

  @Test
  void withoutAnyRecordTheTimeIsUnknown() {
    partition.emittedUpTo(3);
    endIs(partition, 3);
    pass(3_600_000);
    endIs(partition, 3);
    assertEquals(UNKNOWN, readUpTo());
  }

  @Test
  void emptyReaderFollowsItsAnswersOnceAnotherDelivers() {
    partition.emittedUpTo(3);
    endIs(partition, 3);
    time.start();
    assertEquals(nowMs, readUpTo());
    long askedAtMs = nowMs;
    pass(60_000);
    count();
    assertEquals(askedAtMs, readUpTo());
  }

  @Test
  void readerWithoutPartitionsFollowsTheCountOfPartitions() {
    StreamTime none = new StreamTime(IDLENESS_MS);
    none.start();
    assertEquals(UNKNOWN, none.readUpToMs(nowMs));
    none.handedOut(4);
    none.answered(new StreamTime.Count(nowMs, 4));
    assertEquals(nowMs, none.readUpToMs(nowMs));
  }

  @Test
  void partitionThatWasNotHandedOutHoldsTheTime() {
    deliver(partition, START_MS, 1);
    endIs(partition, 1);
    brokerPartitions = 2;
    long before = nowMs;
    for (int offset = 2; offset < 100; offset++) {
      pass(1000);
      deliver(partition, nowMs, offset);
      endIs(partition, offset);
      assertEquals(before, readUpTo());
    }
    assertEquals(StreamTime.Hold.NOT_HANDED_OUT, hold());
    time.handedOut(2);
    assertEquals(nowMs, readUpTo());
  }

  @Test
  void newPartitionOfTheReaderHoldsUntilItHasBeenRead() {
    deliver(partition, START_MS, 1);
    endIs(partition, 1);
    assertEquals(START_MS, readUpTo());
    StreamTime.Partition second = add();
    pass(1000);
    deliver(partition, nowMs, 2);
    endIs(partition, 2);
    assertEquals(UNKNOWN, readUpTo());
    deliver(second, START_MS + 300, 1);
    assertEquals(START_MS + 300, readUpTo());
  }

  @Test
  void timeNeverExceedsTheAnswerAboutTheNumberOfPartitions() {
    count();
    deliver(partition, START_MS, 1);
    pass(30_000);
    deliver(partition, nowMs, 2);
    assertEquals(START_MS, readUpTo());
  }

  @Test
  void skippedPartitionDoesNotHold() {
    time.add(false, false);
    time.handedOut(2);
    brokerPartitions = 2;
    deliver(partition, START_MS, 1);
    endIs(partition, 1);
    assertEquals(START_MS, readUpTo());
  }

  private StreamTime.Partition add() {
    brokerPartitions++;
    time.handedOut(brokerPartitions);
    return time.add(true, false);
  }

  private static void deliver(StreamTime.Partition to, long timestampMs, long position) {
    to.delivered(timestampMs);
    to.emittedUpTo(position);
  }

  /** The broker answers at once: the log ends here, and there are as many partitions as there are. */
  private void endIs(StreamTime.Partition of, long offset) {
    ends(of, offset, offset);
  }

  private void ends(StreamTime.Partition of, long highWatermark, long lastStableOffset) {
    of.answered(new StreamTime.End(nowMs, highWatermark, lastStableOffset));
    count();
  }

  private void count() {
    time.answered(new StreamTime.Count(nowMs, brokerPartitions));
  }

  private void pass(long ms) {
    readUpTo();
    nowMs += ms;
  }

  private long readUpTo() {
    return time.readUpToMs(nowMs);
  }

  private StreamTime.Hold hold() {
    return time.hold(partition, nowMs);
  }
}
