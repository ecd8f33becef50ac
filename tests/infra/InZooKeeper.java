import java.nio.charset.StandardCharsets;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.security.SecurityConfiguration;
import org.apache.flink.runtime.security.SecurityUtils;
import org.apache.flink.runtime.util.ZooKeeperUtils;

/** What a process of Flink does in ZooKeeper, by Flink's own client: {@code QUORUM (read|write PATH [TEXT])...}. */
public class InZooKeeper {
  public static void main(String[] arguments) throws Exception {
    Configuration settings = new Configuration();
    settings.setString("high-availability.zookeeper.quorum", arguments[0]);
    settings.setString("high-availability.zookeeper.path.root", "/event-trigger");
    settings.setString("high-availability.cluster-id", "/test");
    settings.setString("high-availability.zookeeper.client.acl", "creator");
    SecurityUtils.install(new SecurityConfiguration(settings));
    try (var wrapper = ZooKeeperUtils.startCuratorFramework(settings, error -> {})) {
      var client = wrapper.asCuratorFramework();
      for (int next = 1; next < arguments.length; next += 3) {
        String path = arguments[next + 1];
        try {
          if (arguments[next].equals("read")) {
            System.out.println(new String(client.getData().forPath(path), StandardCharsets.UTF_8));
          } else {
            byte[] text = arguments[next + 2].getBytes(StandardCharsets.UTF_8);
            if (client.checkExists().forPath(path) == null) {
              client.create().creatingParentsIfNeeded().forPath(path, text);
            } else {
              client.setData().forPath(path, text);
            }
            System.out.println("written");
          }
        } catch (Exception error) {
          System.out.println(error.getClass().getSimpleName());
        }
      }
    }
  }
}
