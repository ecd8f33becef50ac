package eventtrigger.flink;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Writes the MessagePack types that a micro-batch needs, each in its shortest form, into an array that has enough room.
 * Every method returns the position behind the written bytes.
 */
final class MessagePack {
  private MessagePack() {}

  static int putInteger(byte[] to, int at, long value) {
    if (value >= -32 && value <= 127) {
      to[at] = (byte) value;
      return at + 1;
    }
    return value > 0 ? putUnsigned(to, at, value) : putSigned(to, at, value);
  }

  private static int putUnsigned(byte[] to, int at, long value) {
    if (value <= 0xFFL) {
      return putTyped(to, at, 0xCC, value, 1);
    } else if (value <= 0xFFFFL) {
      return putTyped(to, at, 0xCD, value, 2);
    } else if (value <= 0xFFFFFFFFL) {
      return putTyped(to, at, 0xCE, value, 4);
    }
    return putTyped(to, at, 0xCF, value, 8);
  }

  private static int putSigned(byte[] to, int at, long value) {
    if (value >= Byte.MIN_VALUE) {
      return putTyped(to, at, 0xD0, value, 1);
    } else if (value >= Short.MIN_VALUE) {
      return putTyped(to, at, 0xD1, value, 2);
    } else if (value >= Integer.MIN_VALUE) {
      return putTyped(to, at, 0xD2, value, 4);
    }
    return putTyped(to, at, 0xD3, value, 8);
  }

  static int putBinaryOrNil(byte[] to, int at, byte[] value) {
    if (value == null) {
      to[at] = (byte) 0xC0;
      return at + 1;
    }
    int start;
    if (value.length <= 0xFF) {
      start = putTyped(to, at, 0xC4, value.length, 1);
    } else if (value.length <= 0xFFFF) {
      start = putTyped(to, at, 0xC5, value.length, 2);
    } else {
      start = putTyped(to, at, 0xC6, value.length, 4);
    }
    System.arraycopy(value, 0, to, start, value.length);
    return start + value.length;
  }

  static int arrayHeaderLength(int elements) {
    return elements <= 15 ? 1 : elements <= 0xFFFF ? 3 : 5;
  }

  static int putArrayHeader(byte[] to, int at, int elements) {
    if (elements <= 15) {
      to[at] = (byte) (0x90 | elements);
      return at + 1;
    }
    return elements <= 0xFFFF ? putTyped(to, at, 0xDC, elements, 2) : putTyped(to, at, 0xDD, elements, 4);
  }

  /** An encoded string, in an array of its own because the length of its header depends on its length. */
  static byte[] string(String text) {
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    byte[] encoded = new byte[utf8.length + 5];
    int at;
    if (utf8.length <= 31) {
      encoded[0] = (byte) (0xA0 | utf8.length);
      at = 1;
    } else if (utf8.length <= 0xFF) {
      at = putTyped(encoded, 0, 0xD9, utf8.length, 1);
    } else {
      at = putTyped(encoded, 0, 0xDA, utf8.length, 2);
    }
    System.arraycopy(utf8, 0, encoded, at, utf8.length);
    return Arrays.copyOf(encoded, at + utf8.length);
  }

  private static int putTyped(byte[] to, int at, int type, long value, int width) {
    to[at] = (byte) type;
    for (int i = 1; i <= width; i++) {
      to[at + i] = (byte) (value >>> (8 * (width - i)));
    }
    return at + 1 + width;
  }
}
