package eventtrigger.flink;

import java.util.ArrayList;
import java.util.List;

/**
 * How far a reader has read in the stream's time, decided from what it has emitted and what brokers have answered.
 *
 * <p>A partition has been read up to its newest record. It has been read further, up to the time of a question less the
 * idleness, once the answer says that there is nothing behind the reader's position, and no record has come for the
 * idleness. A partition that has delivered nothing holds the time until it is known to be empty; from then on the
 * time may go as far as that is known. One that was restored has delivered before: it holds the time until then, and for
 * the idleness, as it would have without the restore. What the broker has and no reader was given holds the time, too.
 *
 * <p>Times are in milliseconds: those of records and questions on the wall clock, silence on a clock that never jumps.
 * Used by one thread.
 */
final class StreamTime {
  static final long NONE = Long.MIN_VALUE;
  static final long UNKNOWN = -1;
  // A reader asks every second, and an answer that takes longer than this is reported as missing.
  private static final long ANSWER_DUE_MS = 5000;

  /** Why the time of a partition stands; the code is the value of a metric. */
  enum Hold {
    NOTHING(0),
    NOT_READ_TO_THE_END(1),
    OPEN_TRANSACTION(2),
    NO_ANSWER(3),
    NOT_HANDED_OUT(4);

    final int code;

    Hold(int code) {
      this.code = code;
    }
  }

  /** The end of a partition, as answered to a question asked at a time. */
  record End(long askedAtMs, long highWatermark, long lastStableOffset) {}

  /** The number of partitions of the topic, as answered to a question asked at a time. */
  record Count(long askedAtMs, int partitions) {}

  private final long idlenessMs;
  private final List<Partition> partitions = new ArrayList<>();
  private int handedOut;
  private Count count;
  private long handedOutAtMs = NONE;
  private boolean isStarted;

  StreamTime(long idlenessMs) {
    this.idlenessMs = idlenessMs;
  }

  /** A partition that the reader was given: whether it counts, and whether it comes from a checkpoint. */
  Partition add(boolean counts, boolean isRestored) {
    Partition partition = new Partition(isRestored);
    if (counts) {
      partitions.add(partition);
    }
    return partition;
  }

  /** All readers together have been given this many partitions, and this reader has its share of them. */
  void handedOut(int partitions) {
    handedOut = partitions;
  }

  /** A reader of the source has delivered a record. Before, the time of the stream is unknown. */
  void start() {
    isStarted = true;
  }

  void answered(Count answer) {
    count = answer;
  }

  boolean hasDelivered() {
    return partitions.stream().anyMatch(Partition::hasDelivered);
  }

  /** The time up to which the reader has read, or {@link #NONE}. */
  long readUpToMs(long clockMs) {
    if (count != null && count.partitions() <= handedOut) {
      handedOutAtMs = Math.max(handedOutAtMs, count.askedAtMs());
    }
    long earliest = handedOutAtMs;
    for (Partition partition : partitions) {
      partition.update(clockMs);
      earliest = Math.min(earliest, partition.readUpToMs());
    }
    return isStarted || hasDelivered() ? earliest : NONE;
  }

  /** Why a partition's time stands: what all of them wait for, or what it waits for itself. */
  Hold hold(Partition partition, long nowMs) {
    Hold own = partition.hold(nowMs);
    boolean isMissingOne = count != null && count.partitions() > handedOut;
    return own == Hold.NOTHING && isMissingOne ? Hold.NOT_HANDED_OUT : own;
  }

  /** What is known of a partition. */
  final class Partition {
    private final boolean isRestored;
    private long newestMs = NONE;
    private boolean hasNewRecords;
    private long lastRecordAtMs;
    private long position = NONE;
    private End end;
    private long emptyBehindAtMs = NONE;
    private long silentUpToMs = NONE;

    private Partition(boolean isRestored) {
      this.isRestored = isRestored;
      this.hasNewRecords = isRestored; // it is silent from now on
    }

    private boolean hasDelivered() {
      return isRestored || newestMs != NONE;
    }

    /** A record is emitted. Its time is not after now. */
    void delivered(long timestampMs) {
      newestMs = Math.max(newestMs, timestampMs);
      hasNewRecords = true;
    }

    /** Everything before the position has been emitted. */
    void emittedUpTo(long position) {
      this.position = position;
    }

    void answered(End answer) {
      end = answer;
    }

    /** The time up to which it has been read; without any record, up to which it is known to be empty. */
    long readUpToMs() {
      return hasDelivered() ? Math.max(newestMs, silentUpToMs) : emptyBehindAtMs;
    }

    /** How many offsets lie between what has been emitted and the end of the log; {@link #UNKNOWN} without an answer. */
    long unread(long nowMs) {
      return isAnswered(nowMs) && position != NONE ? Math.max(0, end.highWatermark() - position) : UNKNOWN;
    }

    private boolean isAnswered(long nowMs) {
      return end != null && nowMs - end.askedAtMs() <= ANSWER_DUE_MS;
    }

    private void update(long clockMs) {
      if (hasNewRecords) {
        hasNewRecords = false;
        lastRecordAtMs = clockMs;
      }
      // Not "at least": a position behind the end is one of a log that was cut off or begun anew.
      if (end != null && end.highWatermark() == position && end.lastStableOffset() == position) {
        emptyBehindAtMs = Math.max(emptyBehindAtMs, end.askedAtMs());
      }
      boolean isSilent = hasDelivered() && clockMs - lastRecordAtMs >= idlenessMs;
      if (isSilent && emptyBehindAtMs != NONE) {
        silentUpToMs = emptyBehindAtMs - idlenessMs;
      }
    }

    private Hold hold(long nowMs) {
      if (!isAnswered(nowMs)) {
        return Hold.NO_ANSWER;
      }
      if (position < end.lastStableOffset()) {
        return Hold.NOT_READ_TO_THE_END;
      }
      return end.lastStableOffset() < end.highWatermark() ? Hold.OPEN_TRANSACTION : Hold.NOTHING;
    }
  }
}
