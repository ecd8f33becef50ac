package eventtrigger.flink;

import java.util.Map;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.PTransformTranslator;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.StreamingTranslationContext;
import org.apache.beam.sdk.util.construction.NativeTransforms;

/** Our transforms that Flink runs natively, by URN. */
public final class KafkaTransforms {
  static final String READ_EVENTS = "event_trigger:read_events:v1";
  static final String READ_CONTROL = "event_trigger:read_control:v1";
  static final String WRITE_TO_TOPIC = "event_trigger:write_to_topic:v1";

  private KafkaTransforms() {}

  static Map<String, PTransformTranslator<StreamingTranslationContext>> translations() {
    return Map.of(
        READ_EVENTS, new ReadTranslation(ReadSettings.Kind.EVENTS),
        READ_CONTROL, new ReadTranslation(ReadSettings.Kind.CONTROL),
        WRITE_TO_TOPIC, new WriteTranslation());
  }

  /** Tells Beam's pipeline validation, through a service file, that these URNs are known. */
  public static final class IsNative implements NativeTransforms.IsNativeTransform {
    @Override
    public boolean test(RunnerApi.PTransform transform) {
      return translations().containsKey(transform.getSpec().getUrn());
    }
  }
}
