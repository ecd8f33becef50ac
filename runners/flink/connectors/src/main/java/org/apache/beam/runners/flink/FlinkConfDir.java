package org.apache.beam.runners.flink;

/** Reads {@code --flink-conf-dir}, whose getter in Beam is package-private. */
public final class FlinkConfDir {
  private FlinkConfDir() {}

  /** The directory given to the job server, or null. */
  public static String of(FlinkJobServerDriver.FlinkServerConfiguration configuration) {
    return configuration.getFlinkConfDir();
  }
}
