package org.apache.beam.sdk.fn.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.URL;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.beam.model.jobmanagement.v1.JobApi.GetJobStateRequest;
import org.apache.beam.model.jobmanagement.v1.JobApi.JobStateEvent;
import org.apache.beam.model.jobmanagement.v1.JobServiceGrpc;
import org.apache.beam.model.jobmanagement.v1.JobServiceGrpc.JobServiceImplBase;
import org.apache.beam.model.pipeline.v1.Endpoints.ApiServiceDescriptor;
import org.apache.beam.runners.fnexecution.artifact.ArtifactRetrievalService;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.BindableService;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.ManagedChannel;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.ManagedChannelBuilder;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.Server;
import org.apache.beam.vendor.grpc.v1p69p0.io.grpc.stub.StreamObserver;
import org.junit.jupiter.api.Test;

class ServerFactoryTest {
  private static final String TCP = "org/apache/beam/sdk/fn/server/ServerFactory$InetSocketAddressServerFactory.class";

  @Test
  void serversForWorkersListenOnTheLoopbackAddressOnly() throws Exception {
    ApiServiceDescriptor.Builder descriptor = ApiServiceDescriptor.newBuilder();
    Server server = ServerFactory.createDefault().allocateAddressAndCreate(List.of(), descriptor);
    try {
      assertEquals("localhost:" + server.getPort(), descriptor.getUrl());
      for (Object address : server.getListenSockets()) {
        assertTrue(((InetSocketAddress) address).getAddress().isLoopbackAddress(), address.toString());
      }
    } finally {
      server.shutdownNow();
    }
  }

  @Test
  void aServerListensOnTheAddressThatItIsGiven() throws Exception {
    ApiServiceDescriptor descriptor = ApiServiceDescriptor.newBuilder().setUrl("127.0.0.1:0").build();
    Server server = ServerFactory.createDefault().create(List.of(), descriptor);
    try {
      assertEquals("127.0.0.1", ((InetSocketAddress) server.getListenSockets().get(0)).getAddress().getHostAddress());
    } finally {
      server.shutdownNow();
    }
  }

  @Test
  void noServerGivesOutFilesOfItsProcess() throws Exception {
    ApiServiceDescriptor.Builder descriptor = ApiServiceDescriptor.newBuilder();
    List<BindableService> services =
        List.of(new ArtifactRetrievalService(), new JobServiceImplBase() {});
    Server server = ServerFactory.createDefault().allocateAddressAndCreate(services, descriptor);
    try {
      assertEquals(
          List.of("org.apache.beam.model.job_management.v1.JobService"),
          server.getServices().stream().map(service -> service.getServiceDescriptor().getName()).toList());
    } finally {
      server.shutdownNow();
    }
  }

  @Test
  void aServerWhoseClientHangsEndsSoon() throws Exception {
    CountDownLatch called = new CountDownLatch(1);
    BindableService neverAnswers =
        new JobServiceImplBase() {
          @Override
          public void getState(GetJobStateRequest request, StreamObserver<JobStateEvent> answers) {
            called.countDown();
          }
        };
    Server server =
        ServerFactory.createDefault()
            .allocateAddressAndCreate(List.of(neverAnswers), ApiServiceDescriptor.newBuilder());
    ManagedChannel channel =
        ManagedChannelBuilder.forAddress("localhost", server.getPort()).usePlaintext().build();
    try {
      JobServiceGrpc.newFutureStub(channel).getState(GetJobStateRequest.getDefaultInstance());
      assertTrue(called.await(60, TimeUnit.SECONDS));
      server.shutdown(); // as GrpcFnServer.close
      assertTimeoutPreemptively(
          Duration.ofSeconds(40), () -> assertFalse(server.awaitTermination(60, TimeUnit.SECONDS)));
      server.shutdownNow();
      assertTimeoutPreemptively(Duration.ofSeconds(40), () -> server.awaitTermination());
      assertTrue(server.isTerminated());
    } finally {
      channel.shutdownNow();
      server.shutdownNow();
    }
  }

  /** If this fails after an upgrade: see what Beam has changed, take it over, and write the new digests down. */
  @Test
  void beamsClassIsTheOneThatTheOverrideWasWrittenAgainst() throws Exception {
    String of = "org/apache/beam/sdk/fn/server/ServerFactory.class";
    assertEquals("7f3f4a024e1b6a2e", digestInBeam(of));
    assertEquals("93b5a86013416deb", digestInBeam(TCP));
  }

  private static String digestInBeam(String resource) throws Exception {
    ClassLoader loader = ServerFactoryTest.class.getClassLoader();
    for (URL url : Collections.list(loader.getResources(resource))) {
      if (url.toString().contains("beam-sdks-java-core")) {
        try (InputStream bytes = url.openStream()) {
          byte[] digest = MessageDigest.getInstance("SHA-256").digest(bytes.readAllBytes());
          return HexFormat.of().formatHex(digest).substring(0, 16);
        }
      }
    }
    return "missing";
  }
}
