package eventtrigger.flink;

import org.apache.flink.api.connector.source.SourceEvent;

/**
 * What the enumerator tells all readers.
 *
 * @param partitions how many of the topic's partitions have been given to readers
 * @param isStarted whether a reader has delivered a record
 */
record SourceProgress(int partitions, boolean isStarted) implements SourceEvent {

  /** A reader tells the enumerator that it has delivered its first record. */
  record FirstRecord() implements SourceEvent {}
}
