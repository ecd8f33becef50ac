package org.apache.beam.sdk.fn.server;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.apache.beam.model.pipeline.v1.Endpoints.ApiServiceDescriptor;
import org.apache.beam.sdk.fn.channel.SocketAddressFactory;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.BindableService;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.Server;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.ServerInterceptors;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.ServerServiceDefinition;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.netty.NettyServerBuilder;
import org.apache.beam.vendor.guava.v32_1_2_jre.com.google.common.net.HostAndPort;

/**
 * Replaces Beam's class of this name, whose servers listen on every interface of the machine: whoever reaches a
 * TaskManager could ask them for the job's options, its state and its events. These listen on the address that is asked
 * for, which for workers is the loopback one. It is in {@code beam-overrides.jar}, which comes before Beam's jars on class
 * paths in the order of names. {@code ServerFactoryTest} compares Beam's class with the one that this was written against.
 *
 * <p>They also leave out the service that gives out artifacts. It reads any file that its process may read, for whoever
 * asks, so that a worker with a user of its own could ask for the files of the TaskManager's. Our jobs stage no files.
 *
 * <p>And they end soon. A task that is cancelled closes six of them one after the other, and Beam waits up to a minute for
 * each as long as a worker that hangs holds its connection ({@code GrpcFnServer.close}). Only then is the worker killed.
 */
public abstract class ServerFactory {
  private static final int KEEP_ALIVE_S = 20;
  private static final long END_MS = 1000;
  private static final String ARTIFACTS = "org.apache.beam.model.job_management.v1.ArtifactRetrievalService";

  /** A factory of servers on free ports. */
  public static ServerFactory createDefault() {
    return createWithUrlFactory(UrlFactory.createDefault());
  }

  /** A factory of servers on free ports, whose clients are told the URLs of {@code urlFactory}. */
  public static ServerFactory createWithUrlFactory(UrlFactory urlFactory) {
    return createWithUrlFactoryAndPortSupplier(urlFactory, () -> 0);
  }

  /** A factory of servers on the ports of {@code portSupplier}. */
  public static ServerFactory createWithPortSupplier(Supplier<Integer> portSupplier) {
    return createWithUrlFactoryAndPortSupplier(UrlFactory.createDefault(), portSupplier);
  }

  /** A factory of servers on the ports of {@code portSupplier}, with the URLs of {@code urlFactory}. */
  public static ServerFactory createWithUrlFactoryAndPortSupplier(
      UrlFactory urlFactory, Supplier<Integer> portSupplier) {
    return new InetSocketAddressServerFactory(urlFactory, portSupplier);
  }

  /** A server on an address of its own choice, which {@code descriptor} is given. */
  public abstract Server allocateAddressAndCreate(
      List<BindableService> services, ApiServiceDescriptor.Builder descriptor) throws IOException;

  /** A server on the address of {@code descriptor}. */
  public abstract Server create(List<BindableService> services, ApiServiceDescriptor descriptor)
      throws IOException;

  /** Servers on TCP, on the loopback address unless they are given another one. */
  public static class InetSocketAddressServerFactory extends ServerFactory {
    private final UrlFactory urlFactory;
    private final Supplier<Integer> portSupplier;

    private InetSocketAddressServerFactory(UrlFactory urlFactory, Supplier<Integer> portSupplier) {
      this.urlFactory = urlFactory;
      this.portSupplier = portSupplier;
    }

    @Override
    public Server allocateAddressAndCreate(
        List<BindableService> services, ApiServiceDescriptor.Builder descriptor) throws IOException {
      InetSocketAddress address =
          new InetSocketAddress(InetAddress.getLoopbackAddress(), portSupplier.get());
      Server server = started(services, address);
      descriptor.setUrl(urlFactory.createUrl(address.getHostName(), server.getPort()));
      return server;
    }

    @Override
    public Server create(List<BindableService> services, ApiServiceDescriptor descriptor)
        throws IOException {
      SocketAddress address = SocketAddressFactory.createFrom(descriptor.getUrl());
      if (!(address instanceof InetSocketAddress)) {
        throw new IllegalArgumentException("no host and port: " + descriptor.getUrl());
      }
      return started(services, address);
    }

    private static Server started(List<BindableService> services, SocketAddress address)
        throws IOException {
      NettyServerBuilder builder =
          NettyServerBuilder.forAddress(address)
              .maxInboundMessageSize(Integer.MAX_VALUE)
              .permitKeepAliveTime(KEEP_ALIVE_S, TimeUnit.SECONDS);
      for (BindableService service : services) {
        if (!service.bindService().getServiceDescriptor().getName().equals(ARTIFACTS)) {
          builder.addService(
              ServerInterceptors.intercept(service, GrpcContextHeaderAccessorProvider.interceptor()));
        }
      }
      return new EndingSoon(builder.build().start());
    }
  }

  /** A server that nobody waits for longer than {@code END_MS} before it cuts its connections off. */
  private static final class EndingSoon extends Server {
    private final Server server;

    EndingSoon(Server server) {
      this.server = server;
    }

    @Override
    public boolean awaitTermination(long timeout, TimeUnit unit) throws InterruptedException {
      return server.awaitTermination(Math.min(unit.toMillis(timeout), END_MS), TimeUnit.MILLISECONDS);
    }

    @Override
    public void awaitTermination() throws InterruptedException {
      server.awaitTermination();
    }

    @Override
    public Server start() throws IOException {
      server.start();
      return this;
    }

    @Override
    public Server shutdown() {
      server.shutdown();
      return this;
    }

    @Override
    public Server shutdownNow() {
      server.shutdownNow();
      return this;
    }

    @Override
    public boolean isShutdown() {
      return server.isShutdown();
    }

    @Override
    public boolean isTerminated() {
      return server.isTerminated();
    }

    @Override
    public int getPort() {
      return server.getPort();
    }

    @Override
    public List<? extends SocketAddress> getListenSockets() {
      return server.getListenSockets();
    }

    @Override
    public List<ServerServiceDefinition> getServices() {
      return server.getServices();
    }

    @Override
    public List<ServerServiceDefinition> getImmutableServices() {
      return server.getImmutableServices();
    }

    @Override
    public List<ServerServiceDefinition> getMutableServices() {
      return server.getMutableServices();
    }
  }

  /** Makes the URL that clients use of a server's host and port. */
  @FunctionalInterface
  public interface UrlFactory {
    String createUrl(String address, int port);

    static UrlFactory createDefault() {
      return (host, port) -> HostAndPort.fromParts(host, port).toString();
    }
  }
}
