package org.apache.flink.runtime.util;

import java.util.Arrays;
import java.util.List;
import org.apache.flink.shaded.curator5.org.apache.curator.framework.api.ACLProvider;
import org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.ZooDefs.Ids;
import org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.ZooDefs.Perms;
import org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.data.ACL;
import org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.data.Id;

/**
 * Replaces Flink's class of this name, which {@code high-availability.zookeeper.client.acl: creator} puts in force. Flink's
 * gives all rights to who made a node and none to others, so JobManagers and TaskManagers need one identity, and a
 * TaskManager could name another leader. With the system property {@code eventtrigger.zookeeper.owner} that SASL user
 * may do all, whoever made a node, and everybody else may read. Without the property it is as Flink's.
 */
public class ZooKeeperUtils$SecureAclProvider implements ACLProvider {
  static final String OWNER = "eventtrigger.zookeeper.owner";

  @Override
  public List<ACL> getDefaultAcl() {
    String owner = System.getProperty(OWNER);
    if (owner == null) {
      return Ids.CREATOR_ALL_ACL;
    }
    // Not List.of: ZooKeeper's client asks whether the list contains null, which that one answers with an exception.
    return Arrays.asList(
        new ACL(Perms.ALL, new Id("sasl", owner)), new ACL(Perms.READ, Ids.ANYONE_ID_UNSAFE));
  }

  @Override
  public List<ACL> getAclForPath(String path) {
    return getDefaultAcl();
  }
}
