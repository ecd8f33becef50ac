package eventtrigger.flink;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;

/**
 * Finds the user of a record.
 *
 * <p>Python reads the same bytes with another parser. Whatever Python accepts has the same user here; of what Python
 * makes a dead letter the user does not matter. So this reader may accept more, but never less.
 */
final class RecordUsers {
  static final byte[] NO_USER = new byte[0];

  // Python's parser has no limit for numbers and texts, and refuses more than 1024 levels. Canonical field names would
  // go into a shared symbol table, which hostile field names can overflow.
  private static final JsonFactory JSON =
      JsonFactory.builder()
          .streamReadConstraints(
              StreamReadConstraints.builder()
                  .maxNumberLength(Integer.MAX_VALUE)
                  .maxStringLength(Integer.MAX_VALUE)
                  .maxNestingDepth(1024)
                  .build())
          .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
          .build();

  // Fields of control records that name a user, by precedence.
  private static final List<String> USER_FIELDS = List.of("forget", "inspect", "redrive", "suppress", "unsuppress");

  private RecordUsers() {}

  static byte[] userOfKey(KafkaRecord record) {
    return record.key() == null ? NO_USER : record.key();
  }

  /** The body's first top-level {@code user_id}, if it is a string. With a second one Python makes a dead letter. */
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

  /**
   * The user that a control record names, or null if the record is for every shard. Of two fields with the same name
   * the last counts.
   */
  static byte[] userOfControl(KafkaRecord record) {
    String[] users = new String[USER_FIELDS.size()];
    boolean isForAll = false;
    try (JsonParser body = JSON.createParser(record.value())) {
      if (body.nextToken() != JsonToken.START_OBJECT) {
        return NO_USER;
      }
      while (body.nextToken() == JsonToken.FIELD_NAME) {
        String name = body.getCurrentName();
        JsonToken value = body.nextToken();
        int field = USER_FIELDS.indexOf(name);
        if (field >= 0) {
          users[field] = value == JsonToken.VALUE_STRING ? body.getText() : null;
        }
        isForAll |= name.equals("rules") || name.equals("destination");
        body.skipChildren();
      }
      if (body.nextToken() != null) {
        return NO_USER;
      }
    } catch (IOException e) {
      return NO_USER;
    }
    for (String user : users) {
      if (user != null) {
        return utf8(user);
      }
    }
    return isForAll ? null : NO_USER;
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
