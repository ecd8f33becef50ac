package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertNull;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class RecordUsersTest {

  @Test
  void keyOfTheRecordIsTheUser() {
    assertArrayEquals(Records.utf8("u1"), RecordUsers.userOfKey(Records.event(0, "u1")));
    assertArrayEquals(RecordUsers.NO_USER, RecordUsers.userOfKey(Records.event(0, null)));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          {"user_id": "u1"}                                  | u1
          {"a": {"user_id": "inner"}, "user_id": "u\\u00fc"} | uü
          {"a": [1, [{}]], "user_id": "u1", broken           | u1
          {"user_id": "first", "user_id": "second"}          | first
          """)
  void topLevelUserIdOfTheBodyIsTheUser(String body, String user) {
    assertArrayEquals(Records.utf8(user), RecordUsers.userOfBody(Records.withBody(body)));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "", "{}", "[]", "null", "not JSON", "{\"user_id\": 7}", "{\"user_id\": \"open", "{\"a\": {\"user_id\": \"u\"}}"
      })
  void bodyWithoutUserIdHasNoUser(String body) {
    assertArrayEquals(RecordUsers.NO_USER, RecordUsers.userOfBody(Records.withBody(body)));
  }

  @Test
  void numbersAndTextsMayBeAsLongAsThePythonSideReadsThem() {
    String digits = "1".repeat(60_000);
    String body = "{\"" + digits + "\": " + digits + ", \"b\": \"" + digits + "\", \"user_id\": \"u\"}";
    assertArrayEquals(Records.utf8("u"), RecordUsers.userOfBody(Records.withBody(body)));
    assertArrayEquals(
        Records.utf8("u"),
        RecordUsers.userOfControl(Records.withBody(body.replace("user_id", "forget"))));
  }

  @Test
  void bodyNestedBeyondReasonHasNoUser() {
    String body = "{\"a\":" + "[".repeat(10_000) + "]".repeat(10_000) + ", \"user_id\": \"u\"}";
    assertArrayEquals(RecordUsers.NO_USER, RecordUsers.userOfBody(Records.withBody(body)));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          {"forget": "u1"}               | u1
          {"forget": "u1", "forget": "u2"} | u2
          {"forget": "u1", "forget": 2, "inspect": "u3"} | u3
          {"forget": 1, "rules": [], "forget": "u2"} | u2
          {"forge\\u0074": "u1"}         | u1
          {"inspect": "u2"}              | u2
          {"forget": "u1", "rules": {}}  | u1
          {"redrive": "u3", "action": {}} | u3
          {"redrive": "u3", "inspect": "u2"} | u2
          {"redrive": null}              | ''
          {"suppress": "u4", "group": "*"} | u4
          {"unsuppress": "u4", "group": "m"} | u4
          {"suppress": 7, "group": "*"}  | ''
          {"forget": 7}                  | ''
          {"other": 1}                   | ''
          "rules"                        | ''
          {"rules": {}} {}               | ''
          """)
  void controlRecordGoesToOneUser(String body, String user) {
    assertArrayEquals(Records.utf8(user), RecordUsers.userOfControl(Records.withBody(body)));
  }

  @ParameterizedTest
  @ValueSource(strings = {"{\"rules\": []}", "{\"destination\": null}", "{\"forget\": 1, \"rules\": {}}"})
  void controlRecordGoesToEveryShard(String body) {
    assertNull(RecordUsers.userOfControl(Records.withBody(body)));
  }
}
