package eventtrigger.flink;

/** A setting of a Kafka transform that the job server refuses. */
public final class SettingException extends IllegalArgumentException {

  private SettingException(String message) {
    super(message);
  }

  static SettingException of(String transform, String setting, Object value, String allowed) {
    return new SettingException(
        String.format("%s: setting '%s' is %s, allowed: %s", transform, setting, value, allowed));
  }
}
