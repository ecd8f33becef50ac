package eventtrigger.flink;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import javax.crypto.Cipher;
import javax.crypto.EncryptedPrivateKeyInfo;
import javax.crypto.SecretKeyFactory;
import javax.crypto.spec.PBEKeySpec;
import org.apache.kafka.common.config.ConfigData;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.config.provider.ConfigProvider;

/**
 * Reads secrets of Kafka's clients where the clients run, so that job graphs hold only where a secret lies.
 *
 * <p>{@code ${secret:env:NAME}} is an environment variable, {@code ${secret:file:/PATH}} a file, both one line of ASCII
 * without white space around it. With {@code quoted-env} and {@code quoted-file} it can stand between the double quotes
 * of a JAAS configuration. {@code key-env} and {@code key-file} are a private key, {@code certificate-file} is a file of
 * certificates, all PEM. {@code ${secret:decrypted:KEY\nPASSPHRASE}}, two references, is a private key without its
 * encryption: on Java 17 Kafka's clients cannot read what OpenSSL encrypts (PBES2).
 *
 * <p>What is refused, and in which words, is the same as for librdkafka's clients
 * (transforms/adapters/kafka/clients.py).
 */
public final class SecretProvider implements ConfigProvider {
  private static final int MAX_SECRET_BYTES = 64 * 1024;
  private static final int MAX_CERTIFICATES_BYTES = 1024 * 1024;
  private static final Pattern CONTROL = Pattern.compile("[\\x00-\\x1f\\x7f]");
  private static final Pattern PRIVATE_KEY =
      Pattern.compile(
          "-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*-----END [A-Z ]{0,30}PRIVATE KEY-----", Pattern.DOTALL);
  private static final Pattern CERTIFICATE = Pattern.compile("-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----");

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
      secrets.put(key, secret(path, key));
    }
    return new ConfigData(secrets);
  }

  private String secret(String path, String key) {
    return switch (path) {
      case "env", "file" -> line(path + ":" + key);
      case "quoted-env", "quoted-file" ->
          line(path.substring("quoted-".length()) + ":" + key).replace("\\", "\\\\").replace("\"", "\\\"");
      case "key-env", "key-file" -> privateKey(path.substring("key-".length()) + ":" + key);
      case "certificate-file" -> certificates(key);
      case "decrypted" -> {
        String[] references = key.split("\n", 2);
        yield decrypted(references[0], privateKey(references[0]), line(references[1]));
      }
      default -> throw new ConfigException("${secret:" + path + ":…}: no such kind of secret");
    };
  }

  /** A password, a name or the like: a line break would end it, or a property after it. */
  private String line(String reference) {
    String text = text(reference);
    if (CONTROL.matcher(text).find()) {
      throw new ConfigException(reference + ": has line breaks or other control characters, allowed: one line");
    }
    return text;
  }

  private String privateKey(String reference) {
    String text = text(reference);
    if (!PRIVATE_KEY.matcher(text).find()) {
      throw new ConfigException(
          reference + ": has no whole private key, allowed: PKCS #8 in PEM, from BEGIN to END");
    }
    return text;
  }

  /** What is written beside certificates, as OpenSSL does, may be of any encoding. */
  private static String certificates(String path) {
    String text = new String(content(path, MAX_CERTIFICATES_BYTES), StandardCharsets.ISO_8859_1);
    if (!CERTIFICATE.matcher(text).find()) {
      throw new ConfigException("file:" + path + ": no certificate in it, allowed: a file of PEM");
    }
    return text;
  }

  /** A key that is not encrypted stays as it is. */
  private static String decrypted(String reference, String pem, String passphrase) {
    if (!pem.contains("BEGIN ENCRYPTED PRIVATE KEY")) {
      return pem;
    }
    try {
      byte[] encoded = Base64.getMimeDecoder().decode(pem.replaceAll("-----[A-Z ]*-----", ""));
      EncryptedPrivateKeyInfo info = new EncryptedPrivateKeyInfo(encoded);
      // Of PBES2 the parameters know the algorithm, the name does not.
      AlgorithmParameters parameters = info.getAlgParameters();
      String algorithm = info.getAlgName().equals("PBES2") ? parameters.toString() : info.getAlgName();
      Cipher cipher = Cipher.getInstance(algorithm);
      PBEKeySpec spec = new PBEKeySpec(passphrase.toCharArray());
      cipher.init(Cipher.DECRYPT_MODE, SecretKeyFactory.getInstance(algorithm).generateSecret(spec), parameters);
      String key = Base64.getMimeEncoder().encodeToString(info.getKeySpec(cipher).getEncoded());
      return "-----BEGIN PRIVATE KEY-----\n" + key + "\n-----END PRIVATE KEY-----";
    } catch (IOException | GeneralSecurityException | IllegalArgumentException error) {
      // Without the cause: messages of ciphers are of no use, and none may show a part of the key.
      throw new ConfigException(
          reference + ": this private key cannot be decrypted with its passphrase, allowed: PKCS #8 in PEM");
    }
  }

  private String text(String reference) {
    String place = reference.substring(reference.indexOf(':') + 1);
    String text;
    if (reference.startsWith("env:")) {
      text = environment.get(place);
      if (text == null) {
        throw new ConfigException(reference + ": no such environment variable");
      }
    } else {
      // Bytes that are not ASCII become characters that are not, too.
      text = new String(content(place, MAX_SECRET_BYTES), StandardCharsets.ISO_8859_1);
    }
    if (!StandardCharsets.US_ASCII.newEncoder().canEncode(text)) {
      throw new ConfigException(reference + ": not ASCII");
    }
    text = text.strip();
    if (text.isEmpty()) {
      throw new ConfigException(reference + ": is empty");
    }
    return text;
  }

  /** What has no end, as a device or a pipe may, is not opened. */
  private static byte[] content(String path, int limit) {
    try {
      Path file = Path.of(path);
      BasicFileAttributes attributes = Files.readAttributes(file, BasicFileAttributes.class);
      if (attributes.isDirectory()) {
        throw new ConfigException("file:" + path + ": Is a directory");
      }
      if (!attributes.isRegularFile()) {
        throw new ConfigException("file:" + path + ": no regular file");
      }
      try (InputStream opened = Files.newInputStream(file)) {
        byte[] content = opened.readNBytes(limit + 1);
        if (content.length > limit) {
          long size = Math.max(content.length, Files.size(file));
          throw new ConfigException("file:" + path + ": " + size + " bytes, allowed are " + limit);
        }
        return content;
      }
    } catch (NoSuchFileException error) {
      throw new ConfigException("file:" + path + ": No such file or directory");
    } catch (AccessDeniedException error) {
      throw new ConfigException("file:" + path + ": Permission denied");
    } catch (IOException error) {
      throw new ConfigException("file:" + path + ": " + error.getMessage());
    }
  }

  @Override
  public void close() {}
}
