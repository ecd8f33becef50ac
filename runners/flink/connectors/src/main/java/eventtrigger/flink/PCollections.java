package eventtrigger.flink;

import static org.apache.beam.runners.fnexecution.translation.PipelineTranslatorUtils.instantiateCoder;

import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.flink.FlinkStreamingPortablePipelineTranslator.StreamingTranslationContext;
import org.apache.beam.runners.flink.translation.types.CoderTypeInformation;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.beam.sdk.values.WindowedValues.WindowedValueCoder;
import org.apache.beam.vendor.guava.v32_1_2_jre.com.google.common.collect.Iterables;

/** Finds a transform's PCollections and checks their coders. */
final class PCollections {
  private PCollections() {}

  static String onlyInput(RunnerApi.PTransform transform) {
    return Iterables.getOnlyElement(transform.getInputsMap().values());
  }

  static String onlyOutput(RunnerApi.PTransform transform) {
    return Iterables.getOnlyElement(transform.getOutputsMap().values());
  }

  /** The PCollection's coder; fails if it is not {@code expected}, as the bytes would be misread. */
  static <T> WindowedValueCoder<T> coderOf(
      String pCollection, Coder<T> expected, String transform, RunnerApi.Pipeline pipeline) {
    WindowedValueCoder<T> coder =
        (WindowedValueCoder<T>) PCollections.<T>instantiate(pCollection, pipeline.getComponents());
    if (!coder.getValueCoder().equals(expected)) {
      throw new IllegalArgumentException(
          String.format(
              "%s: its PCollection is coded with %s, allowed: %s (give the Python step bytes as type hints)",
              transform, coder.getValueCoder(), expected));
    }
    return coder;
  }

  static <T> CoderTypeInformation<WindowedValue<T>> typeOf(
      String pCollection,
      Coder<T> expected,
      String transform,
      RunnerApi.Pipeline pipeline,
      StreamingTranslationContext context) {
    Coder<WindowedValue<T>> coder = coderOf(pCollection, expected, transform, pipeline);
    return new CoderTypeInformation<>(coder, context.getPipelineOptions());
  }

  private static <T> Coder<WindowedValue<T>> instantiate(String pCollection, RunnerApi.Components components) {
    return instantiateCoder(pCollection, components);
  }
}
