package eventtrigger.flink;

import com.sun.net.httpserver.HttpServer;
import com.sun.net.httpserver.HttpsServer;
import com.sun.net.httpserver.spi.HttpServerProvider;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;

/**
 * Has the JDK's HTTP servers, of which Flink's Prometheus reporter is one, listen on the loopback address where they would
 * listen on every interface: that reporter has no setting for it. A JVM uses it with {@code
 * -Dcom.sun.net.httpserver.HttpServerProvider=eventtrigger.flink.LoopbackHttpServers} and {@code
 * --add-exports=jdk.httpserver/sun.net.httpserver=ALL-UNNAMED}.
 */
public final class LoopbackHttpServers extends HttpServerProvider {
  private final HttpServerProvider own;

  public LoopbackHttpServers() throws ReflectiveOperationException {
    // By name, because a compiler for Java 17 does not know the package.
    own =
        (HttpServerProvider)
            Class.forName("sun.net.httpserver.DefaultHttpServerProvider").getConstructor().newInstance();
  }

  @Override
  public HttpServer createHttpServer(InetSocketAddress address, int backlog) throws IOException {
    return own.createHttpServer(closed(address), backlog);
  }

  @Override
  public HttpsServer createHttpsServer(InetSocketAddress address, int backlog) throws IOException {
    return own.createHttpsServer(closed(address), backlog);
  }

  private static InetSocketAddress closed(InetSocketAddress address) {
    boolean isOpen = address != null && address.getAddress() != null && address.getAddress().isAnyLocalAddress();
    return isOpen ? new InetSocketAddress(InetAddress.getLoopbackAddress(), address.getPort()) : address;
  }
}
