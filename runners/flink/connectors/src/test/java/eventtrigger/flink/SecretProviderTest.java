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

  // Of OpenSSL: a key on the curve P-256 under the passphrase "secret".
  private static final String ENCRYPTED =
      "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
          + "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgViXriEGzXFAICCAAwDAYIKoZIhvcNAgkF"
          + "ADAdBglghkgBZQMEASoEEJsiti4lcZKvTzk/yimoNLQEgZCpZzWkttTraxYcKSaSJOkvZB98NwrHWA3p"
          + "LC6B6O362SIAwuQtmEU8x3xOAIE0k1q7RpSOT6iTEkNdrabUtwjnk1NzP+iEoAN91a0P0RypneqWvEF2"
          + "KubGRx93tylDA7GeAkyTZoCLA23+jnBSvbiDDcQgKQrtUTAJK8HuwbTa7X/KLdtCHlI635Mw5mh4RXM="
          + "\n-----END ENCRYPTED PRIVATE KEY-----\n";
  private static final String DECRYPTED = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggsqJoQzf2mM7Ae0iDo/wyJs0smd5XibEYLfh9DohD02hRANCAASMaZVb4cEQsXBI6jxDrrKTcC9pUWdgDLRqHAxrg1oXpMkzBfJQAjzhzVpo/d7RLR3qUkJQQSZC1XY39kDMY8f5";

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
  void aKeyIsReadWithItsPassphrase(@TempDir Path folder) throws Exception {
    Path file = Files.writeString(folder.resolve("key.pem"), ENCRYPTED);
    var provider = new SecretProvider(Map.of("PASSPHRASE", "secret", "OTHER", "s3cr3t", "PLAIN", "-----BEGIN PRIVATE KEY"));
    String name = "file:" + file + "\nenv:PASSPHRASE";
    String key = provider.get("decrypted", Set.of(name)).data().get(name);
    assertEquals(
        "-----BEGIN PRIVATE KEY-----" + DECRYPTED + "-----END PRIVATE KEY-----", key.replaceAll("[\r\n]", ""));
    String plain = "env:PLAIN\nenv:OTHER";
    assertEquals("-----BEGIN PRIVATE KEY", provider.get("decrypted", Set.of(plain)).data().get(plain));
    var wrong =
        assertThrows(
            ConfigException.class, () -> provider.get("decrypted", Set.of("file:" + file + "\nenv:OTHER")));
    assertTrue(wrong.getMessage().startsWith("file:" + file + ": this private key cannot be decrypted"));
  }

  @Test
  void whatIsNotThereIsNamed() {
    var missing = assertThrows(ConfigException.class, () -> secret("env", "NONE"));
    assertTrue(missing.getMessage().contains("env:NONE"), missing.getMessage());
    var file = assertThrows(ConfigException.class, () -> secret("file", "/no/such"));
    assertTrue(file.getMessage().contains("file:/no/such"), file.getMessage());
  }
}
