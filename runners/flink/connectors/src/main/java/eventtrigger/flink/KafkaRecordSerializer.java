package eventtrigger.flink;

import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/**
 * Flink's serializer for {@link KafkaRecord}. Source and micro-batch operator are chained, so in practice Flink only
 * calls {@code copy}, which returns the record itself.
 */
public final class KafkaRecordSerializer extends TypeSerializerSingleton<KafkaRecord> {
  static final KafkaRecordSerializer INSTANCE = new KafkaRecordSerializer();
  private static final int NULL = -1;

  @Override
  public boolean isImmutableType() {
    return true;
  }

  @Override
  public KafkaRecord createInstance() {
    return new KafkaRecord("", 0, 0, 0, null, null);
  }

  @Override
  public KafkaRecord copy(KafkaRecord record) {
    return record;
  }

  @Override
  public KafkaRecord copy(KafkaRecord record, KafkaRecord reuse) {
    return record;
  }

  @Override
  public int getLength() {
    return -1;
  }

  @Override
  public void serialize(KafkaRecord record, DataOutputView out) throws IOException {
    out.writeUTF(record.topic());
    out.writeInt(record.partition());
    out.writeLong(record.offset());
    out.writeLong(record.timestampMs());
    writeBytes(record.key(), out);
    writeBytes(record.value(), out);
  }

  @Override
  public KafkaRecord deserialize(DataInputView in) throws IOException {
    return new KafkaRecord(
        in.readUTF(), in.readInt(), in.readLong(), in.readLong(), readBytes(in), readBytes(in));
  }

  @Override
  public KafkaRecord deserialize(KafkaRecord reuse, DataInputView in) throws IOException {
    return deserialize(in);
  }

  @Override
  public void copy(DataInputView in, DataOutputView out) throws IOException {
    serialize(deserialize(in), out);
  }

  @Override
  public TypeSerializerSnapshot<KafkaRecord> snapshotConfiguration() {
    return new Snapshot();
  }

  private static void writeBytes(byte[] bytes, DataOutputView out) throws IOException {
    if (bytes == null) {
      out.writeInt(NULL);
      return;
    }
    out.writeInt(bytes.length);
    out.write(bytes);
  }

  private static byte[] readBytes(DataInputView in) throws IOException {
    int length = in.readInt();
    if (length == NULL) {
      return null;
    }
    byte[] bytes = new byte[length];
    in.readFully(bytes);
    return bytes;
  }

  /** Names the serializer in a checkpoint. */
  public static final class Snapshot extends SimpleTypeSerializerSnapshot<KafkaRecord> {
    public Snapshot() {
      super(() -> INSTANCE);
    }
  }
}
