package eventtrigger.flink;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.HashMap;
import java.util.Map;
import org.apache.beam.vendor.guava.v32_1_2_jre.com.google.common.collect.Lists;
import org.apache.flink.runtime.OperatorIDPair;
import org.apache.flink.runtime.jobgraph.JobGraph;
import org.apache.flink.runtime.jobgraph.JobVertex;
import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.streaming.api.graph.StreamGraph;
import org.apache.flink.streaming.api.graph.StreamGraphHasherV2;
import org.apache.flink.streaming.api.graph.StreamNode;

/** Flink's plan of a job as JSON: its operators with their UIDs, and the vertices into which they are chained. */
final class Plan {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final Map<OperatorID, StreamNode> nodes = new HashMap<>();
  private final ArrayNode nodesOut = JSON.createArrayNode();
  private final ArrayNode verticesOut = JSON.createArrayNode();

  private Plan(StreamGraph graph) {
    // Compute the hashes first: making the job graph clears the stream graph.
    new StreamGraphHasherV2()
        .traverseStreamGraphAndGenerateHashes(graph)
        .forEach((id, hash) -> nodes.put(new OperatorID(hash), graph.getStreamNode(id)));
    JobGraph job = graph.getJobGraph();
    job.getVerticesSortedTopologicallyFromSources().forEach(this::addVertex);
  }

  static String toJson(StreamGraph graph) throws JsonProcessingException {
    Plan plan = new Plan(graph);
    ObjectNode root = JSON.createObjectNode();
    root.set("nodes", plan.nodesOut);
    root.set("vertices", plan.verticesOut);
    return JSON.writerWithDefaultPrettyPrinter().writeValueAsString(root);
  }

  private void addVertex(JobVertex vertex) {
    ArrayNode operators = verticesOut.addObject().put("name", vertex.getName()).putArray("operators");
    // Flink lists a chain from its end.
    for (OperatorIDPair operator : Lists.reverse(vertex.getOperatorIDs())) {
      StreamNode node = nodes.get(operator.getGeneratedOperatorID());
      operators.add(node.getTransformationUID());
      nodesOut
          .addObject()
          .put("name", node.getOperatorName())
          .put("uid", node.getTransformationUID())
          .put("operator", operatorClass(node))
          .put("parallelism", node.getParallelism())
          .put("vertex", vertex.getName());
    }
  }

  private static String operatorClass(StreamNode node) {
    return node.getOperatorFactory().getStreamOperatorClass(Plan.class.getClassLoader()).getSimpleName();
  }
}
