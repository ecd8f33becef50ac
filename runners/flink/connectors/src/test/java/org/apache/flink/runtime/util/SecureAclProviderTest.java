package org.apache.flink.runtime.util;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import java.io.InputStream;
import java.net.URL;
import java.security.MessageDigest;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import org.apache.flink.shaded.curator5.org.apache.curator.framework.api.ACLProvider;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class SecureAclProviderTest {
  private static final String CLASS = "org/apache/flink/runtime/util/ZooKeeperUtils$SecureAclProvider.class";

  @AfterEach
  void noOwner() {
    System.clearProperty("eventtrigger.zookeeper.owner");
  }

  @Test
  void theOwnerMayDoAllAndEverybodyElseReads() throws Exception {
    System.setProperty("eventtrigger.zookeeper.owner", "jobmanager");
    assertEquals(List.of("31 sasl:jobmanager", "1 world:anyone"), acls());
  }

  @Test
  void withoutAnOwnerItIsAsFlinks() throws Exception {
    assertEquals(List.of("31 auth:"), acls());
  }

  private static List<String> acls() throws Exception {
    Class<?> used = Class.forName("org.apache.flink.runtime.util.ZooKeeperUtils$SecureAclProvider");
    ACLProvider provider = (ACLProvider) used.getDeclaredConstructor().newInstance();
    assertEquals(provider.getDefaultAcl(), provider.getAclForPath("/a/b"));
    assertFalse(provider.getDefaultAcl().contains(null), "which ZooKeeper's client asks");
    return provider.getDefaultAcl().stream()
        .map(acl -> acl.getPerms() + " " + acl.getId().getScheme() + ":" + acl.getId().getId())
        .toList();
  }

  /** If this fails after an upgrade: see what Flink has changed, take it over, and write the new digest down. */
  @Test
  void flinksClassIsTheOneThatTheOverrideWasWrittenAgainst() throws Exception {
    ClassLoader loader = SecureAclProviderTest.class.getClassLoader();
    for (URL url : Collections.list(loader.getResources(CLASS))) {
      if (url.toString().contains("flink-runtime")) {
        try (InputStream bytes = url.openStream()) {
          byte[] digest = MessageDigest.getInstance("SHA-256").digest(bytes.readAllBytes());
          assertEquals("cd839a811ae7546a", HexFormat.of().formatHex(digest).substring(0, 16));
          return;
        }
      }
    }
    throw new AssertionError("flink-runtime is not on the class path");
  }
}
