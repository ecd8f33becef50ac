from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from transforms.domain.base.secret_references import SecretError
from transforms.domain.webhooks.signatures import parse_keys, signature_headers


def now_s() -> int:
    """The current time: receivers accept only signatures of the last five minutes."""
    return int(time.time())


def secret(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


keys = st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=5)
# Receivers' libraries decode the body.
bodies = st.text().map(lambda text: text.encode("utf-8", "ignore"))
ids = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)


@given(keys=keys, webhook_id=ids, body=bodies)
def test_a_receiver_with_any_of_the_keys_verifies_it(keys: list[bytes], webhook_id: str, body: bytes) -> None:
    headers = signature_headers(parse_keys(" ".join(map(secret, keys))), webhook_id, now_s(), body)
    assert headers.keys() == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    for key in keys:
        Webhook(secret(key)).verify(body, headers, json_parse=False)


@given(key=st.binary(min_size=24, max_size=64), body=st.binary(max_size=100))
def test_a_signature_is_what_the_specification_says(key: bytes, body: bytes) -> None:
    mac = hmac.new(key, b"msg_1.1700000000." + body, hashlib.sha256)
    expected = "v1," + base64.b64encode(mac.digest()).decode()
    assert signature_headers([key], "msg_1", 1_700_000_000, body) == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": expected,
    }


def test_the_example_of_the_specification() -> None:
    """From the reference libraries' own tests (standard-webhooks, ``libraries``)."""
    (key,) = parse_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("changed", ["body", "webhook-id", "webhook-timestamp", "key"])
def test_a_receiver_detects_any_change(changed: str) -> None:
    key = b"k" * 24
    headers = signature_headers([key], "msg_1", now_s(), b"{}")
    if changed in headers:
        headers[changed] = "1" if changed == "webhook-id" else str(int(headers[changed]) + 1)
    receiver = Webhook(secret(b"o" * 24 if changed == "key" else key))
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        receiver.verify(b"{ }" if changed == "body" else b"{}", headers)


def test_each_of_several_keys_signs_in_their_order() -> None:
    old, new = b"o" * 24, b"n" * 64
    both = signature_headers([new, old], "m", 1, b"{}")["webhook-signature"].split(" ")
    assert both == [signature_headers([key], "m", 1, b"{}")["webhook-signature"] for key in (new, old)]


@pytest.mark.parametrize("size", [24, 25, 26, 64])
def test_keys_are_of_24_to_64_bytes_padded_or_not(size: int) -> None:
    key = bytes(range(size))
    assert parse_keys(secret(key)) == parse_keys(f" {secret(key).rstrip('=')}\n") == (key,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 keys, allowed are 1 to 5"),
        (" ".join([secret(b"s" * 24)] * 6), "6 keys, allowed are 1 to 5"),
        ("c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nz", "a key that does not begin with whsec_"),
        ("whsec_" + "ß" * 40, "a key that is not base64 after whsec_"),
        ("whsec_c3Nz-3Nz_3Nzc3Nzc3Nzc3Nzc3Nzc3Nz", "a key that is not base64 after whsec_"),
        ("whsec_c3N=z", "a key that is not base64 after whsec_"),
        (secret(b"s" * 23), "a key of 23 bytes, allowed are 24 to 64"),
        (secret(b"s" * 65), "a key of 65 bytes, allowed are 24 to 64"),
        (f"{secret(b's' * 24)} {secret(b's' * 10)}", "a key of 10 bytes, allowed are 24 to 64"),
        ("whsec_", "a key of 0 bytes, allowed are 24 to 64"),
    ],
)
def test_an_invalid_secret_is_refused_and_not_shown(text: str, message: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse_keys(text)
    assert str(caught.value) == message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("webhook_id", ["", "a.b", "a b", "a\r\nb", "ä", "x" * 129])
def test_an_ambiguous_webhook_id_is_refused(webhook_id: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(webhook_id))):
        signature_headers([b"k" * 24], webhook_id, now_s(), b"")
