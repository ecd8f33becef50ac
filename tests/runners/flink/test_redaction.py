from __future__ import annotations

import time

import pytest

from runners.flink.redaction import HIDDEN, without_secrets


@pytest.mark.parametrize(
    "text",
    [
        "signed with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw.",
        "signature v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=",
        "Authorization: Bearer whateverItIs.123",
        "GET https://user:passw0rd@host/path failed",
        "using AKIAIOSFODNN7EXAMPLE today",
        "password='a b c d' and more",
        '{"client_secret": "abcdef", "n": 1}',
        "url?x=1&api_key=abcdef&y=2",
        "sasl.password=abcdef,sasl.mechanism=PLAIN",
        "got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhYmNkZWYifQ.abcdefabcdef from the issuer",
        "key -----BEGIN PRIVATE KEY-----\nabcdef\nabcdef\n-----END PRIVATE KEY----- is no RSA key",
        "cut off: -----BEGIN ENCRYPTED PRIVATE KEY-----\\nabcdef",
        "Authorization: Digest username=ann, response=abcdef",
        "authorization: AWS4-HMAC-SHA256 Credential=abcdef/20260101, SignedHeaders=host, Signature=abcdef",
        '{"Proxy-Authorization": "Negotiate abcdef abcdef"}',
        "Cookie: theme=dark; sid=abcdef",
        "{'Set-Cookie': 'sid=abcdef; HttpOnly; Path=/'}",
        "https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Credential=abcdef&X-Amz-Signature=abcdef",
        "https://a.blob.example.com/c?sv=2024&sig=abcdef%3D",
        "pass phrase: abcdef",
        "ssl.key.passphrase = abcdef",
        "Server=db;User Id=ann;Pwd=abcdef;",
        "DefaultEndpointsProtocol=https;AccountKey=abcdef==;EndpointSuffix=x",
        "postgresql://ann:abcdef@db/x",
        'Authorization: Digest username="ann", realm="x", response="abcdef"',
        "('Cookie', 'sid=abcdef')",
        "[(b'authorization', b'Negotiate abcdef')]",
        '{"log": "{\\"password\\": \\"abcdef ghi\\"}"}',
        '{"password": "ab\\"cdef"}',
        "password=ab,cdef",
        "password=ab&cdef;x",
        'password=ab"cdef',
        "{'password': b'a b cdef'}",
        "redirect=https%3A%2F%2Fx%3Fsig%3Dabcdef",
        "https://x/?a=1&amp;sig=abcdef",
        "https://x/?next=https%3A%2F%2Fy%3Ftoken%3Dabcdef",
        "postgresql://ann:p@abcdef@db/x",
        "postgres://ann:pa/abcdef@db/x",
        "redis://:abcdef@host",
        "jdbc:oracle:thin:ann/abcdef@//host",
        "secret key: abcdef",
        "Api Key = abcdef",
        "signing_key: abcdef",
        "aws_secret_access_key = abcdef",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\\nabcdef",
        "https://hooks.slack.com/services/T0/B0/abcdef",
        "ghp_abcdefabcdefabcdefabcdefabcdefabcdef",
        "X-Api-Key: abcdef",
        '{"headers": {"Authorization": ["Digest abcdef"]}}',
        'Set-Cookie: a="b"; sid=abcdef',
        "eyAiYWxnIjoiSFMyNTYiIH0.eyJzdWIiOiJhYmNkZWYifQ.abcdef",
        "{'Authorization': \"Digest username='ann', response='abcdef'\"}",
        'sasl.jaas.config=org.apache.kafka.X required username="ann" password="abcdef";',
        "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=abcdef=;EntityPath=q",
        "client_secret=abcdef&grant_type=x",
        "PASSWORD : abcdef",
        '"db.password"="abcdef"',
        "password=>abcdef",
        "mongodb+srv://ann:abcdef@host/?retry=1",
        "<db.password kind='x'>abcdef</db.password>",
        "<token><![CDATA[abc<d>abcdef]]></token>",
        '<property name="sasl.password" value="abcdef"/>',
        '{"name": "API_TOKEN", "value": "abcdef"}',
        "starting kcat --sasl-password abcdef9 -L",
        "curl -u ann:abcdef https://x",
        "machine x login ann password abcdef",
        "[('api_key', 'abcdef')]",
        '["password", "abcdef"]',
        "%22password%22%3A%22abcdef%22",
        "X-Amz-Signature\\u003dabcdef\\u0026x",
        "password: |\n  abcdef\n  abcdef",
        "DB_PASS=abcdef",
        "_auth=abcdef",
        "JSESSIONID=abcdef",
        "user_hash_key: abcdef",
        "https://discord.com/api/webhooks/1/abcdef",
        "https://api.telegram.org/bot12:abcdef/sendMessage",
        "https://x.webhook.office.com/webhookb2/abcdef@y",
        "https://hooks.zapier.com/hooks/catch/12/abcdef/",
        "sk-proj-abcdefabcdefabcdefabcdef",
        "hvs.abcdefabcdefabcdefabcdef",
        "SG.abcdefabcdef.abcdefabcdef",
        "invalid password 'abcdef'",
        'the password is "abcdef"',
        'password=""abcdef""',
        "password=\u201cx abcdef\u201d",
        "authorization%3A%20Negotiate%20abcdef",
        "Cookie: a=1;\r\n sid=abcdef",
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nabcdef",
        "https://x/?jwt=abcdef&a=1",
        "//ann:abcdef@host/path",
    ],
)
def test_secrets_inside_texts_are_hidden(text: str) -> None:
    line = without_secrets(text)
    assert HIDDEN in line
    parts = (
        "MfKQ9r8",
        "K5oZfzN95",
        "aaaaaaa",
        "whateverItIs",
        "passw0rd",
        "AKIAIOS",
        "a b c d",
        "abcdef",
        "cdef",
        "ghi",
    )
    assert not any(part in line for part in parts)


@pytest.mark.parametrize(
    "text",
    [
        "job 0123 is running: http://127.0.0.1:8081/#/job/0123/overview",
        "Beam imported in 1.4 s, connected in 0.2 s",
        "rule 'tokens_spent' version 3 is live",
        "see https://hooks.example.com/@us/x",
        "allowed: env:NAME, file:/ABSOLUTE/PATH or aws-secret:NAME#JSON-KEY",
        "--kafka_password is aws-secret:kafka#password: AccessDeniedException",
        "cookies are off; no authorization is needed",
        "https://shop.example.com/p?keyword=shoes&code_name=x",
        "http://127.0.0.1:8081/jobs/a@b",
        '"user_api_token": "env:API_TOKEN", "x": 1',
        "password: env:KAFKA_PW",
        "dead_letters_key=file:/run/secrets/letters",
        "Authorization: env:HEADER",
        "user_key=record",
        "transforms.domain.base.secret_references.SecretError: 4 characters, 18 bits at most",
        "Caused by: software.amazon.awssdk.TokenExpiredException: it has expired",
        "see --kafka_user and --kafka_password, --kafka_key must be PKCS #8",
        "--kafka_password is missing",
        "tests passed: 3, author: ann, authors=ann",
        "session 1 of 2; the bypass: open; compass=1",
        '["name", "value"]',
        "<b>token</b>",
        "pekko.tcp.ssl//flink/user/rpc",
    ],
)
def test_texts_without_secrets_stay(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("env:API_TOKEN: no such environment variable", "env:API_TOKEN: no such environment variable"),
        ("allowed: aws-secret:NAME#JSON-KEY (the key)", "allowed: aws-secret:NAME#JSON-KEY (the key)"),
        ("API_TOKEN: hush", "API_TOKEN: [hidden]"),
        ("my.api-token=hush", "my.api-token=[hidden]"),
    ],
)
def test_a_reference_to_a_secret_is_none(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "token" * 40_000,
        "token " * 40_000,
        "secret_" * 30_000,
        "-----BEGIN " * 20_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
        "password=\\" * 20_000,
        'password="' * 20_000,
        "authorization'" * 20_000,
        "cookie: " * 20_000,
        "eyJaaaaa." * 20_000,
        "://a:" * 40_000,
        "x://" + "a:b" * 50_000,
        "%3Fsig" * 30_000,
        "password" + " " * 200_000,
        "<token " * 30_000,
        "<token>" * 20_000,
        "name='token' " * 15_000,
        "--token " * 20_000,
        "-" * 100_000,
        "cookie: a\n b" * 10_000,
        "token: |\n  a" * 10_000,
        "token: \u201c" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_time_grows_with_the_length_alone(text: str) -> None:
    short_s, long_s = (_cpu_s(text[: len(text) // share]) for share in (8, 1))
    # Eight times as long. Quadratic patterns take 64 times as long, and some tens of seconds.
    assert long_s < 24 * short_s + 0.5


def _cpu_s(text: str) -> float:
    started_s = time.thread_time()
    without_secrets(text)
    return time.thread_time() - started_s
