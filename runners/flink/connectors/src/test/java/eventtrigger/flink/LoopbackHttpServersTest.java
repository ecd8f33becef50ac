package eventtrigger.flink;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import org.junit.jupiter.api.Test;

class LoopbackHttpServersTest {
  @Test
  void aServerForEveryInterfaceListensOnTheLoopbackAddress() throws Exception {
    HttpServer server = new LoopbackHttpServers().createHttpServer(new InetSocketAddress(0), 0);
    try {
      assertTrue(server.getAddress().getAddress().isLoopbackAddress(), server.getAddress().toString());
      assertTrue(server.getAddress().getPort() > 0);
    } finally {
      server.stop(0);
    }
  }

  @Test
  void aServerForAnAddressListensThere() throws Exception {
    HttpServer server = new LoopbackHttpServers().createHttpServer(new InetSocketAddress("127.0.0.2", 0), 0);
    try {
      assertEquals("127.0.0.2", server.getAddress().getAddress().getHostAddress());
    } finally {
      server.stop(0);
    }
  }
}
