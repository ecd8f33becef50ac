package eventtrigger.flink;

import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.kafka.clients.producer.ProducerConfig;

/** How a topic is written: the payload of the write URN (see the README of this module). */
record WriteSettings(
    String topic,
    DeliveryGuarantee deliveryGuarantee,
    String transactionalIdPrefix,
    Map<String, String> producerConfig) {

  static WriteSettings parse(String transform, byte[] payload) {
    SettingsReader settings = new SettingsReader(transform, payload);
    WriteSettings parsed =
        new WriteSettings(
            settings.string("topic"),
            settings.oneOf("delivery_guarantee", guarantees()),
            settings.stringOrNull("transactional_id_prefix"),
            settings.kafkaProperties("producer_config", ProducerConfig.configDef()));
    settings.refuseOthers();
    parsed.checkPrefix(settings);
    return parsed;
  }

  boolean exactlyOnce() {
    return deliveryGuarantee == DeliveryGuarantee.EXACTLY_ONCE;
  }

  private void checkPrefix(SettingsReader settings) {
    if (exactlyOnce() && transactionalIdPrefix == null) {
      throw settings.refuse("transactional_id_prefix", null, "a string, as delivery_guarantee is EXACTLY_ONCE");
    }
    if (!exactlyOnce() && transactionalIdPrefix != null) {
      throw settings.refuse(
          "transactional_id_prefix", transactionalIdPrefix, "null, as delivery_guarantee is AT_LEAST_ONCE");
    }
  }

  private static Map<String, DeliveryGuarantee> guarantees() {
    Map<String, DeliveryGuarantee> guarantees = new LinkedHashMap<>();
    guarantees.put("AT_LEAST_ONCE", DeliveryGuarantee.AT_LEAST_ONCE);
    guarantees.put("EXACTLY_ONCE", DeliveryGuarantee.EXACTLY_ONCE);
    return guarantees;
  }
}
