package eventtrigger.flink;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.config.ConfigData;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.config.provider.ConfigProvider;

/**
 * Reads secrets of Kafka's clients where the clients run, so that job graphs hold only where a secret lies.
 *
 * <p>{@code ${secret:env:NAME}} is an environment variable, {@code ${secret:file:/PATH}} a file, both without white
 * space around the secret. With {@code quoted-env} and {@code quoted-file} the secret can stand between the double
 * quotes of a JAAS configuration.
 */
public final class SecretProvider implements ConfigProvider {
  private final Map<String, String> environment;

  public SecretProvider() {
    this(System.getenv());
  }

  SecretProvider(Map<String, String> environment) {
    this.environment = environment;
  }

  @Override
  public void configure(Map<String, ?> configs) {}

  @Override
  public ConfigData get(String path) {
    return new ConfigData(Map.of());
  }

  @Override
  public ConfigData get(String path, Set<String> keys) {
    Map<String, String> secrets = new HashMap<>();
    for (String key : keys) {
      String secret = path.endsWith("env") ? variable(key) : content(key);
      secrets.put(key, path.startsWith("quoted-") ? secret.replace("\\", "\\\\").replace("\"", "\\\"") : secret);
    }
    return new ConfigData(secrets);
  }

  private String variable(String name) {
    String text = environment.get(name);
    if (text == null) {
      throw new ConfigException("env:" + name + ": no such environment variable");
    }
    return text.strip();
  }

  private static String content(String path) {
    try {
      return Files.readString(Path.of(path), StandardCharsets.UTF_8).strip();
    } catch (IOException error) {
      throw new ConfigException("file:" + path + ": " + error.getClass().getSimpleName());
    }
  }

  @Override
  public void close() {}
}
