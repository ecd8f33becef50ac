package eventtrigger.flink;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigValue;

/**
 * Reads settings one by one from a transform's JSON payload. Every setting must be present and of the right type, and
 * {@link #refuseOthers} refuses settings that were not read.
 */
final class SettingsReader {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final String transform;
  private final JsonNode payload;
  private final Set<String> known = new LinkedHashSet<>();

  SettingsReader(String transform, byte[] payload) {
    this.transform = transform;
    this.payload = parse(transform, payload);
  }

  private static JsonNode parse(String transform, byte[] payload) {
    JsonNode node;
    try {
      node = JSON.readTree(payload);
    } catch (JsonProcessingException e) {
      throw SettingException.of(transform, "payload", "not JSON: " + e.getOriginalMessage(), "a JSON object");
    } catch (IOException e) {
      throw SettingException.of(transform, "payload", "not readable: " + e.getMessage(), "a JSON object");
    }
    if (!node.isObject()) {
      throw SettingException.of(transform, "payload", nameOfType(node), "a JSON object");
    }
    return node;
  }

  String string(String name) {
    return text(name, node(name, "a string"), "a string");
  }

  String stringOrNull(String name) {
    JsonNode node = node(name, "a string or null");
    return node.isNull() ? null : text(name, node, "a string or null");
  }

  private String text(String name, JsonNode node, String allowed) {
    if (!node.isTextual() || node.textValue().isEmpty()) {
      throw refuse(name, node, allowed + ", not empty");
    }
    return node.textValue();
  }

  int integer(String name, int least, int most) {
    return (int) range(name, node(name, range(least, most)), least, most);
  }

  Long longOrNull(String name, long least) {
    JsonNode node = node(name, range(least, Long.MAX_VALUE) + " or null");
    return node.isNull() ? null : Long.valueOf(range(name, node, least, Long.MAX_VALUE));
  }

  List<Integer> integers(String name, int least) {
    String allowed = "a list of integers from " + least;
    JsonNode node = node(name, allowed);
    if (!node.isArray()) {
      throw refuse(name, node, allowed);
    }
    List<Integer> integers = new ArrayList<>();
    for (JsonNode element : node) {
      if (!element.isIntegralNumber() || !element.canConvertToInt() || element.intValue() < least) {
        throw refuse(name, node, allowed);
      }
      integers.add(element.intValue());
    }
    return integers;
  }

  private long range(String name, JsonNode node, long least, long most) {
    boolean inRange =
        node.isIntegralNumber() && node.canConvertToLong() && node.longValue() >= least && node.longValue() <= most;
    if (!inRange) {
      throw refuse(name, node, range(least, most));
    }
    return node.longValue();
  }

  private static String range(long least, long most) {
    return most == Long.MAX_VALUE ? "an integer from " + least : "an integer from " + least + " to " + most;
  }

  <E extends Enum<E>> E oneOf(String name, Map<String, E> choices) {
    String allowed = String.join(", ", choices.keySet());
    JsonNode node = node(name, allowed);
    E choice = node.isTextual() ? choices.get(node.textValue()) : null;
    if (choice == null) {
      throw refuse(name, node, allowed);
    }
    return choice;
  }

  /** Kafka client properties. Messages leave out their values, some of which are secrets. */
  Map<String, String> kafkaProperties(String name, ConfigDef known) {
    JsonNode node = node(name, "an object of strings");
    if (!node.isObject()) {
      throw refuse(name, node, "an object of strings");
    }
    Map<String, String> properties = new LinkedHashMap<>();
    for (Map.Entry<String, JsonNode> field : node.properties()) {
      if (!field.getValue().isTextual()) {
        throw SettingException.of(transform, name + "." + field.getKey(), nameOfType(field.getValue()), "a string");
      }
      properties.put(field.getKey(), field.getValue().textValue());
    }
    if (properties.getOrDefault("bootstrap.servers", "").isEmpty()) {
      throw SettingException.of(transform, name + ".bootstrap.servers", "missing", "host:port, comma-separated");
    }
    checkValues(name, properties, known);
    return properties;
  }

  /** Checks values before the job reaches the cluster, where Kafka would refuse them. Kafka ignores unknown names. */
  private void checkValues(String name, Map<String, String> properties, ConfigDef known) {
    for (ConfigValue checked : known.validate(properties)) {
      if (properties.containsKey(checked.name()) && !checked.errorMessages().isEmpty()) {
        ConfigDef.ConfigKey key = known.configKeys().get(checked.name());
        String range = key.validator == null ? "" : " " + key.validator;
        throw SettingException.of(transform, name + "." + checked.name(), "not valid", key.type + range);
      }
    }
  }

  /** Fails on the first setting that none of the other methods has read. */
  void refuseOthers() {
    payload
        .fieldNames()
        .forEachRemaining(
            name -> {
              if (!known.contains(name)) {
                throw SettingException.of(transform, name, "unknown", "the settings " + String.join(", ", known));
              }
            });
  }

  SettingException refuse(String name, Object value, String allowed) {
    return SettingException.of(transform, name, value, allowed);
  }

  private JsonNode node(String name, String allowed) {
    known.add(name);
    JsonNode node = payload.get(name);
    if (node == null) {
      throw SettingException.of(transform, name, "missing", allowed);
    }
    return node;
  }

  private static String nameOfType(JsonNode node) {
    return "of type " + node.getNodeType().name().toLowerCase(Locale.ROOT);
  }
}
