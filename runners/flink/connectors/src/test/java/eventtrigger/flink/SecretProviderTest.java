package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.security.ssl.DefaultSslEngineFactory;
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

  // Of the key above, for a hundred years.
  private static final String CERTIFICATE =
      "-----BEGIN CERTIFICATE-----\n"
          + "MIIBdTCCARugAwIBAgIUGlX6I+r+MfxKWkuv1rexo82YSPYwCgYIKoZIzj0EAwIwDzENMAsGA1UEAwwE"
          + "dGVzdDAgFw0yNjEyMDEwMTQ2MjJaGA8yMTI2MTEwNzAxNDYyMlowDzENMAsGA1UEAwwEdGVzdDBZMBMG"
          + "ByqGSM49AgEGCCqGSM49AwEHA0IABIxplVvhwRCxcEjqPEOuspNwL2lRZ2AMtGocDGuDWhekyTMF8lAC"
          + "POHNWmj93tEtHepSQlBBJkLVdjf2QMxjx/mjUzBRMB0GA1UdDgQWBBTVbDdCeid3VAknAzFmzV/jEB51"
          + "8DAfBgNVHSMEGDAWgBTVbDdCeid3VAknAzFmzV/jEB518DAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49"
          + "BAMCA0gAMEUCICXbRJQinfy7f4lHk27rYWSPCK5P6ZlYJyPhdWoHGlmMAiEA82vWxlNNq8/Xn8UcchlE"
          + "Eu7jUDnUk5NekNJm3mwM/DA="
          + "\n-----END CERTIFICATE-----\n";
  private static final String PLAIN = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----";

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

  private static ConsumerConfig clientWith(Map<String, Object> properties) {
    Map<String, Object> all = new HashMap<>(properties);
    all.put("bootstrap.servers", "b:9092");
    all.put("key.deserializer", ByteArrayDeserializer.class);
    all.put("value.deserializer", ByteArrayDeserializer.class);
    all.put("config.providers", "secret");
    all.put("config.providers.secret.class", SecretProvider.class.getName());
    return new ConsumerConfig(all);
  }

  @Test
  void clientsOfKafkaReadFiles(@TempDir Path folder) throws Exception {
    Path file = Files.writeString(folder.resolve("password:1"), "s3cr3t\n");
    var config =
        clientWith(Map.of("sasl.jaas.config", "Login required password=\"${secret:quoted-file:" + file + "}\";"));
    assertEquals("Login required password=\"s3cr3t\";", config.getPassword("sasl.jaas.config").value());
  }

  @Test
  void clientsOfKafkaShowACertificate(@TempDir Path folder) throws Exception {
    Path certificate = Files.writeString(folder.resolve("certificate.pem"), CERTIFICATE);
    Path key = folder.resolve("key.pem");
    Files.writeString(key, "-----BEGIN PRIVATE KEY-----\n" + DECRYPTED + "\n-----END PRIVATE KEY-----\n");
    Path encrypted = Files.writeString(folder.resolve("encrypted.pem"), ENCRYPTED);
    Path passphrase = Files.writeString(folder.resolve("passphrase"), "secret\n");
    String decrypted = "decrypted:file:" + encrypted + "\nfile:" + passphrase;
    for (String reference : Set.of("key-file:" + key, decrypted)) {
      var config =
          clientWith(
              Map.of(
                  "security.protocol", "SSL",
                  "ssl.keystore.type", "PEM",
                  "ssl.keystore.certificate.chain", "${secret:certificate-file:" + certificate + "}",
                  "ssl.keystore.key", "${secret:" + reference + "}"));
      try (var engines = new DefaultSslEngineFactory()) {
        engines.configure(config.values());
        assertEquals(1, engines.keystore().size());
        assertTrue(engines.keystore().isKeyEntry(engines.keystore().aliases().nextElement()));
      }
    }
  }

  @Test
  void aKeyIsReadWithItsPassphrase(@TempDir Path folder) throws Exception {
    Path file = Files.writeString(folder.resolve("key.pem"), ENCRYPTED);
    var provider = new SecretProvider(Map.of("PASSPHRASE", "secret", "OTHER", "s3cr3t", "PLAIN", PLAIN));
    String name = "file:" + file + "\nenv:PASSPHRASE";
    String key = provider.get("decrypted", Set.of(name)).data().get(name);
    assertEquals(
        "-----BEGIN PRIVATE KEY-----" + DECRYPTED + "-----END PRIVATE KEY-----", key.replaceAll("[\r\n]", ""));
    String plain = "env:PLAIN\nenv:OTHER";
    assertEquals(PLAIN, provider.get("decrypted", Set.of(plain)).data().get(plain));
    var wrong =
        assertThrows(
            ConfigException.class, () -> provider.get("decrypted", Set.of("file:" + file + "\nenv:OTHER")));
    assertTrue(wrong.getMessage().startsWith("file:" + file + ": this private key cannot be decrypted"));
  }

  private static void assertRefused(String message, String path, String key) {
    var error = assertThrows(ConfigException.class, () -> secret(path, key));
    assertEquals(message, error.getMessage());
  }

  @Test
  void whatIsNotThereIsNamed(@TempDir Path folder) {
    assertRefused("env:NONE: no such environment variable", "env", "NONE");
    assertRefused("file:/no/such: No such file or directory", "quoted-file", "/no/such");
    assertRefused("file:/no/such: No such file or directory", "certificate-file", "/no/such");
    assertRefused("file:" + folder + ": Is a directory", "file", folder.toString());
  }

  @Test
  void whatMayHaveNoEndIsNotRead(@TempDir Path folder) throws Exception {
    Path pipe = folder.resolve("pipe");
    assertEquals(0, new ProcessBuilder("mkfifo", pipe.toString()).start().waitFor());
    Path large = Files.writeString(folder.resolve("large"), "s".repeat(64 * 1024 + 1));
    Path many = Files.writeString(folder.resolve("many"), " ".repeat(1024 * 1024 + 1));
    assertTimeoutPreemptively(
        Duration.ofSeconds(30),
        () -> {
          for (String path : Set.of("file", "key-file", "certificate-file")) {
            for (String file : Set.of("/dev/zero", pipe.toString())) {
              assertRefused("file:" + file + ": no regular file", path, file);
            }
          }
          assertRefused("file:" + large + ": 65537 bytes, allowed are 65536", "file", large.toString());
          assertRefused(
              "file:" + many + ": 1048577 bytes, allowed are 1048576", "certificate-file", many.toString());
        });
  }

  @Test
  void aLinkLeadsToASecret(@TempDir Path folder) throws Exception {
    // As Kubernetes mounts one.
    Files.createDirectory(folder.resolve("..data_1"));
    Files.writeString(folder.resolve("..data_1/password"), "s".repeat(64 * 1024));
    Files.createSymbolicLink(folder.resolve("..data"), Path.of("..data_1"));
    Path link = Files.createSymbolicLink(folder.resolve("password"), Path.of("..data/password"));
    assertEquals("s".repeat(64 * 1024), secret("file", link.toString()));
  }

  @Test
  void aPasswordIsOneLineOfAscii(@TempDir Path folder) throws Exception {
    String lines = "has line breaks or other control characters, allowed: one line";
    Map<String, String> wrong =
        Map.of(
            "s3cr\r\nt", lines, "s3cr\nt", lines, "s3cr\0t", lines, "s3cr\tt", lines, "s3cr\u007ft", lines,
            "", "is empty", " \n", "is empty", "s3crß", "not ASCII", "\ufeffs3cr3t", "not ASCII");
    for (var entry : wrong.entrySet()) {
      var provider = new SecretProvider(Map.of("P", entry.getKey()));
      String file = Files.writeString(folder.resolve("p"), entry.getKey()).toString();
      for (String path : Set.of("env", "quoted-env")) {
        var error = assertThrows(ConfigException.class, () -> provider.get(path, Set.of("P")));
        assertEquals("env:P: " + entry.getValue(), error.getMessage());
      }
      assertRefused("file:" + file + ": " + entry.getValue(), "file", file);
    }
  }

  @Test
  void aKeyIsWholeAndInPem(@TempDir Path folder) throws Exception {
    Path file = folder.resolve("key.pem");
    Files.writeString(file, PLAIN + "\n");
    assertEquals(PLAIN, secret("key-file", file.toString()));
    for (String text : Set.of("s3cr3t", PLAIN.substring(0, 30), PLAIN.replace("PRIVATE KEY", "CERTIFICATE"))) {
      Files.writeString(file, text);
      String message = "file:" + file + ": has no whole private key, allowed: PKCS #8 in PEM, from BEGIN to END";
      assertRefused(message, "key-file", file.toString());
      assertRefused(message, "decrypted", "file:" + file + "\nenv:PASSWORD");
    }
  }

  @Test
  void aFileOfCertificatesHasOneAndAnyTextBesideIt(@TempDir Path folder) throws Exception {
    Path file = folder.resolve("certificate.pem");
    String pem = "-----BEGIN CERTIFICATE-----\r\nMIIE\r\n-----END CERTIFICATE-----\r\n";
    Files.writeString(file, "subject=CN=Müller\n" + pem);
    assertTrue(secret("certificate-file", file.toString()).endsWith(pem));
    for (String text : Set.of("", PLAIN)) {
      Files.writeString(file, text);
      assertRefused(
          "file:" + file + ": no certificate in it, allowed: a file of PEM", "certificate-file", file.toString());
    }
  }

  @Test
  void anUnknownKindIsNotTakenForAFile() {
    assertRefused("${secret:fiel:…}: no such kind of secret", "fiel", "/etc/hostname");
  }
}
