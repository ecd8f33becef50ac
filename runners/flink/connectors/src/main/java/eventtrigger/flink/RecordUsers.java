package eventtrigger.flink;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** Finds the user of a record. */
final class RecordUsers {
  static final byte[] NO_USER = new byte[0];

  // Canonical field names would go into a shared symbol table, which hostile field names can overflow.
  private static final JsonFactory JSON =
      JsonFactory.builder().disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES).build();
  private static final ObjectMapper MAPPER =
      new ObjectMapper(JSON).enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private RecordUsers() {}

  static byte[] userOfKey(KafkaRecord record) {
    return record.key() == null ? NO_USER : record.key();
  }

  /** The body's first top-level {@code user_id}, if it is a string. */
  static byte[] userOfBody(KafkaRecord record) {
    try (JsonParser body = JSON.createParser(record.value())) {
      if (body.nextToken() != JsonToken.START_OBJECT) {
        return NO_USER;
      }
      while (body.nextToken() == JsonToken.FIELD_NAME) {
        boolean isUser = body.getCurrentName().equals("user_id");
        JsonToken value = body.nextToken();
        if (isUser) {
          return value == JsonToken.VALUE_STRING ? utf8(body.getText()) : NO_USER;
        }
        body.skipChildren();
      }
      return NO_USER;
    } catch (IOException e) {
      // Python parses the whole body and makes this record a dead letter with the reason.
      return NO_USER;
    }
  }

  /** The user that a control record names, or null if the record is for every shard. */
  static byte[] userOfControl(KafkaRecord record) {
    JsonNode body = parseControl(record);
    for (String name : new String[] {"forget", "inspect", "redrive"}) {
      if (body.path(name).isTextual()) {
        return utf8(body.path(name).textValue());
      }
    }
    return body.has("rules") || body.has("destination") ? null : NO_USER;
  }

  private static JsonNode parseControl(KafkaRecord record) {
    try {
      return MAPPER.readTree(record.value());
    } catch (IOException e) {
      return MAPPER.missingNode();
    }
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
