package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SecretProviderTest {
  private static final SecretProvider PROVIDER = new SecretProvider(Map.of("PASSWORD", " a\"b\\c\n"));

  private static String secret(String path, String key) {
    return PROVIDER.get(path, Set.of(key)).data().get(key);
  }

  @Test
  void variablesAreReadWithoutWhiteSpaceAroundThem() {
    assertEquals("a\"b\\c", secret("env", "PASSWORD"));
  }

  @Test
  void quotesOfJaasAreEscaped() {
    assertEquals("a\\\"b\\\\c", secret("quoted-env", "PASSWORD"));
  }

  @Test
  void clientsOfKafkaReadFiles(@TempDir Path folder) throws Exception {
    Path file = Files.writeString(folder.resolve("password:1"), "s3cr3t\n");
    var config =
        new ConsumerConfig(
            Map.of(
                "bootstrap.servers", "b:9092",
                "key.deserializer", ByteArrayDeserializer.class,
                "value.deserializer", ByteArrayDeserializer.class,
                "config.providers", "secret",
                "config.providers.secret.class", SecretProvider.class.getName(),
                "sasl.jaas.config", "Login required password=\"${secret:quoted-file:" + file + "}\";"));
    assertEquals("Login required password=\"s3cr3t\";", config.getPassword("sasl.jaas.config").value());
  }

  @Test
  void whatIsNotThereIsNamed() {
    var missing = assertThrows(ConfigException.class, () -> secret("env", "NONE"));
    assertTrue(missing.getMessage().contains("env:NONE"), missing.getMessage());
    var file = assertThrows(ConfigException.class, () -> secret("file", "/no/such"));
    assertTrue(file.getMessage().contains("file:/no/such"), file.getMessage());
  }
}
