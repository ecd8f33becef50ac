package eventtrigger.flink;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
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
 * <p>{@code ${secret:env:NAME}} is an environment variable, {@code ${secret:file:/PATH}} a file, both without white
 * space around the secret. With {@code quoted-env} and {@code quoted-file} the secret can stand between the double
 * quotes of a JAAS configuration. {@code ${secret:decrypted:KEY\nPASSPHRASE}}, two references, is a private key in PEM
 * without its encryption: on Java 17 Kafka's clients cannot read what OpenSSL encrypts (PBES2).
 */
public final class SecretProvider implements ConfigProvider {
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
      if (path.equals("decrypted")) {
        String[] references = key.split("\n", 2);
        secrets.put(key, decrypted(references[0], secret(references[0]), secret(references[1])));
        continue;
      }
      String secret = path.endsWith("env") ? variable(key) : content(key);
      secrets.put(key, path.startsWith("quoted-") ? secret.replace("\\", "\\\\").replace("\"", "\\\"") : secret);
    }
    return new ConfigData(secrets);
  }

  private String secret(String reference) {
    String place = reference.substring(reference.indexOf(':') + 1);
    return reference.startsWith("env:") ? variable(place) : content(place);
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

  private String variable(String name) {
    String text = environment.get(name);
    if (text == null) {
      throw new ConfigException("env:" + name + ": no such environment variable");
    }
    return text.strip();
  }

  private static String content(String path) {
    try {
      return Files.readString(Path.of(path), StandardCharsets.UTF_8).strip();
    } catch (IOException error) {
      throw new ConfigException("file:" + path + ": " + error.getClass().getSimpleName());
    }
  }

  @Override
  public void close() {}
}
