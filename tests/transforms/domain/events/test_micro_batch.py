from __future__ import annotations

import json
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.events.micro_batch import (
    CONTROL,
    EVENTS,
    MicroBatch,
    control_keys,
    decode_batch,
    encode_batch,
    key_of,
    shard_of,
    split_by_shard,
    user_bytes,
)
from transforms.domain.events.record import (
    ProducedRecord,
    Record,
    decode_produced,
    encode_produced,
)

# The Java operator's tests read the same file.
ROOT = Path(__file__).parents[4]
VECTORS = json.loads((ROOT / "runners/flink/connectors/src/test/resources/wire_vectors.json").read_text())


def of_hex(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


@pytest.mark.parametrize("vector", named(VECTORS["micro_batches"]))
def test_micro_batches_are_the_bytes_that_java_writes(vector: dict[str, Any]) -> None:
    records = [
        Record(
            *(fields["partition"], fields["offset"], fields["timestamp_ms"]),
            of_hex(fields["key_hex"]),
            bytes.fromhex(fields["value_hex"]),
        )
        for fields in vector["records"]
    ]
    assert encode_batch(vector["kind"], vector["topic"], records).hex() == vector["hex"]
    assert decode_batch(bytes.fromhex(vector["hex"])) == MicroBatch(1, vector["kind"], vector["topic"], records)


@pytest.mark.parametrize("vector", named(VECTORS["produced_records"]))
def test_produced_records_are_the_bytes_that_java_reads(vector: dict[str, Any]) -> None:
    headers = [(name, bytes.fromhex(value)) for name, value in vector["headers"]]
    key, value = of_hex(vector["key_hex"]), bytes.fromhex(vector["value_hex"])
    packed = encode_produced(vector["topic"], key, value, headers)
    assert packed.hex() == vector["hex"]
    assert decode_produced(packed) == ProducedRecord(1, vector["topic"], key, value, headers)


@pytest.mark.parametrize("vector", VECTORS["shard_keys"])
def test_users_have_the_shards_that_java_gives_them(vector: dict[str, Any]) -> None:
    user = bytes.fromhex(vector["user_hex"])
    assert shard_of(user, vector["user_shards"]) == vector["shard"]
    # The salt is Flink's; here it is always 0.
    assert key_of(user, vector["user_shards"]) == bytes.fromhex(vector["key_hex"])[:4] + bytes(4)


def test_the_wire_format_is_what_the_contract_says() -> None:
    assert encode_batch(EVENTS, "t", [Record(1, 2, 3, None, b"v")]).hex() == "940100a1749195010203c0c40176"
    assert encode_produced(None, b"k", b"v", [("h", b"x")]).hex() == "9501c0c4016bc401769192a168c40178"


def test_a_batch_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="micro-batch version 2, this worker reads 1: update the connectors jar"):
        decode_batch(msgspec.msgpack.encode((2, 0, "t", [])))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode((1, 0, "t", [[1, 2]]))])
def test_bytes_that_are_not_a_batch_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_batch(payload)


def test_without_shards_the_key_is_the_user() -> None:
    assert key_of("üser".encode(), 0) == "üser".encode()


@given(st.lists(st.tuples(st.binary(max_size=2) | st.none(), st.binary(max_size=3)), max_size=40), st.integers(0, 5))
def test_split_keeps_every_record_and_the_order_of_each_user(pairs: list[Any], user_shards: int) -> None:
    records = [Record(0, offset, 0, key, value) for offset, (key, value) in enumerate(pairs)]
    by_user: dict[bytes, list[Record]] = defaultdict(list)
    keys = []
    for key, payload in split_by_shard(EVENTS, "t", records, user_shards, "record"):
        keys.append(key)
        for record in decode_batch(payload).records:
            assert key == key_of(record.key or b"", user_shards)
            by_user[record.key or b""].append(record)
    assert len(keys) == len(set(keys))
    assert sum(map(len, by_user.values())) == len(records)
    assert all(
        [record.offset for record in grouped] == sorted(record.offset for record in grouped)
        for grouped in by_user.values()
    )


@pytest.mark.parametrize(
    ("value", "user"),
    [
        (b'{"user_id":"u1"}', b"u1"),
        ('{"a":{"user_id":"x"},"user_id":"ü"}'.encode(), "ü".encode()),
        (b'{"user_id":7}', b""),
        (b"{}", b""),
        (b"not JSON", b""),
        (b"", b""),
        (b'{"user_id":"\xff"}', b""),
        (rb'{"user_id":"\ud800"}', b""),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b',"user_id":"u1"}', b""),
    ],
)
def test_the_user_is_read_from_the_body_if_so_configured(value: bytes, user: bytes) -> None:
    assert user_bytes(Record(0, 0, 0, b"key", value), "field") == user


def test_the_user_is_the_record_key_by_default() -> None:
    assert user_bytes(Record(0, 0, 0, b"key", b'{"user_id":"u1"}'), "record") == b"key"
    assert user_bytes(Record(0, 0, 0, None, b""), "record") == b""


def control(value: Any, user_shards: int) -> list[bytes]:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return control_keys(Record(0, 0, 0, None, raw), user_shards)


@pytest.mark.parametrize("user_shards", [0, 8])
@pytest.mark.parametrize("name", ["forget", "inspect", "redrive", "suppress", "unsuppress"])
def test_a_control_record_of_a_user_goes_where_the_user_is(name: str, user_shards: int) -> None:
    assert control({name: "ü"}, user_shards) == [key_of("ü".encode(), user_shards)]


@pytest.mark.parametrize("name", ["rules", "destination"])
def test_a_control_record_for_all_users_goes_to_every_shard(name: str) -> None:
    assert control({name: {}}, 3) == [struct.pack(">II", shard, 0) for shard in range(3)]
    assert control({name: {}}, 0) == [b""]


def test_forget_takes_precedence_over_inspect_and_both_over_redrive_and_rules() -> None:
    assert control({"rules": {}, "inspect": "b", "forget": "a"}, 0) == [b"a"]
    assert control({"rules": {}, "redrive": "c", "inspect": "b", "forget": 1}, 0) == [b"b"]
    assert control({"rules": {}, "redrive": "c", "inspect": 2}, 0) == [b"c"]


@pytest.mark.parametrize(
    "value",
    [b"", b"nonsense", b"\xff", b'{"forget":"\xff"}', b"[" * 10_000, b"[]", b"{}", {"forget": 7}, {"inspect": None}],
)
@pytest.mark.parametrize("user_shards", [0, 8])
def test_a_control_record_that_is_not_valid_goes_to_the_empty_user(value: Any, user_shards: int) -> None:
    assert control(value, user_shards) == [key_of(b"", user_shards)]


def test_control_records_are_split_by_their_keys() -> None:
    records = [Record(0, 0, 0, None, b'{"rules":{}}'), Record(0, 1, 0, None, b'{"forget":"u1"}')]
    split = {
        key: [record.offset for record in decode_batch(payload).records]
        for key, payload in split_by_shard(CONTROL, "c", records, 4, "record")
    }
    forgetting = key_of(b"u1", 4)
    assert len(split) == 4
    assert split == {key: [0, 1] if key == forgetting else [0] for key in split}
