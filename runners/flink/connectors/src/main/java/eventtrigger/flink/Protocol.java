package eventtrigger.flink;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.util.LinkedHashMap;
import java.util.Map;

/** Messages of the job server to the process that started it: one JSON object a line. */
final class Protocol {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final PrintStream out;

  Protocol(PrintStream out) {
    this.out = out;
  }

  void ready(String jobEndpoint) {
    print(Map.of("job_endpoint", jobEndpoint));
  }

  void submitted(String jobId, String jobName) {
    Map<String, String> job = new LinkedHashMap<>();
    job.put("job_id", jobId);
    job.put("job_name", jobName);
    print(Map.of("submitted", job));
  }

  private synchronized void print(Map<String, ?> message) {
    try {
      out.println(JSON.writeValueAsString(message));
      out.flush();
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }
}
