package eventtrigger.flink;

import java.io.DataInputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;

/**
 * Reads a number and as many record values from standard input, each after its length (all 32 bits, big-endian). Prints
 * a line for each: the user of the value as an event and as a control record, in base64; {@code *} stands for every
 * shard. A test in Python compares them with what Python reads.
 */
final class UsersOfRecords {
  private UsersOfRecords() {}

  public static void main(String[] arguments) throws IOException {
    DataInputStream values = new DataInputStream(System.in);
    PrintStream lines = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    for (int left = values.readInt(); left > 0; left--) {
      byte[] value = values.readNBytes(values.readInt());
      KafkaRecord record = new KafkaRecord("topic", 0, 0, 0, null, value);
      lines.println(
          shown(RecordUsers.userOfBody(record)) + " " + shown(RecordUsers.userOfControl(record)));
    }
    lines.flush();
  }

  private static String shown(byte[] user) {
    return user == null ? "*" : Base64.getEncoder().encodeToString(user);
  }
}
