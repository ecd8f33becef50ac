"""Bearer tokens by client credentials (RFC 6749, section 4.4), for destinations that want them."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus, urlencode

import msgspec

from transforms.adapters.http.calls import CallError
from transforms.adapters.http.transport import Ending, Request, Response, Transport
from transforms.adapters.secrets import Secret
from transforms.domain.base.secret_references import SecretError
from transforms.domain.users.fetched_user import BAD_ANSWER, STATUS
from transforms.domain.webhooks.destinations import OAuth2, SecretValue, is_header_value

_TOKEN: Final = re.compile(r"[!-~]{1,8192}")  # anything else could end the header
_ERROR: Final = re.compile(r"[ !#-\[\]-~]{1,100}")  # RFC 6749, section 5.2
# A server that does not say how long a token lives answers 401 when it has ended.
_LIFETIME_S: Final = 3600.0
_RESERVE_S: Final = 30.0
_NEW_S: Final = 5.0

TokenDone = Callable[[str | CallError], None]


class _Answer(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: int | float | None = None


class _Refusal(msgspec.Struct):
    error: str


class ClientCredentials:
    """The token of one destination: requested once for all who wait for it, kept until shortly before its end.

    Only used in the transport's I/O thread.

    Attributes:
        secrets: what is read by reference; a request reads them.
    """

    def __init__(
        self, settings: OAuth2, transport: Transport, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = settings.token_url
        self._scope = settings.scope
        self._transport = transport
        self._timeout_s = timeout_s
        self._clock = clock
        self._secret = Secret(settings.client_secret, check_header_secret)
        client_id = settings.client_id
        self._client_id = (
            Secret(client_id.secret, check_header_secret) if isinstance(client_id, SecretValue) else client_id
        )
        self.secrets = [self._secret, *([self._client_id] if isinstance(self._client_id, Secret) else [])]
        self._token: str | None = None
        self._since_s = self._ends_s = 0.0
        self._waiting: list[TokenDone] = []

    def request(self, done: TokenDone) -> None:
        """Have ``done`` called with a token, or with the reason why there is none."""
        if self._token is not None and self._clock() < self._ends_s:
            done(self._token)
            return
        self._waiting.append(done)
        if len(self._waiting) > 1:
            return
        try:
            request = self._token_request()
        except SecretError as error:
            self._finish(CallError(BAD_ANSWER, str(error)))
            return
        self._transport.start(request, self._on_ending)

    def renew(self, refused: str) -> bool:
        """Forget a token that the destination refused; returns whether another one may be taken.

        A new token that is refused means that the client may not send there.
        """
        if self._token != refused:
            return True
        self._token = None
        return self._clock() >= self._since_s + _NEW_S

    def _token_request(self) -> Request:
        client_id = self._client_id.text() if isinstance(self._client_id, Secret) else self._client_id
        login = f"{quote_plus(client_id)}:{quote_plus(self._secret.text())}"
        headers = [
            f"Authorization: Basic {base64.b64encode(login.encode()).decode()}",
            "Content-Type: application/x-www-form-urlencoded",
            "Accept: application/json",
        ]
        form = {"grant_type": "client_credentials"} | ({} if self._scope is None else {"scope": self._scope})
        # Tokens are requested so rarely that a kept connection would be a dead one more often than it saves something.
        return Request(self._url, headers, self._timeout_s, urlencode(form).encode(), fresh=True)

    def _on_ending(self, ending: Ending) -> None:
        if not isinstance(ending, Response):
            kind = ending.kind if isinstance(ending, CallError) else BAD_ANSWER
            self._finish(CallError(kind, f"token: {ending}"))
        elif ending.status != 200:
            self._finish(CallError(STATUS, f"token: HTTP {ending.status}{_reason(ending.body)}"))
        else:
            self._finish(self._read(ending.body))

    def _read(self, body: bytes) -> str | CallError:
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return CallError(BAD_ANSWER, "token: not an answer of RFC 6749, section 5.1")
        if answer.token_type.lower() != "bearer" or not _TOKEN.fullmatch(answer.access_token):
            return CallError(BAD_ANSWER, "token: not a bearer token of visible ASCII")
        lifetime_s = _LIFETIME_S if answer.expires_in is None else float(answer.expires_in)
        self._token = answer.access_token
        self._since_s = self._clock()
        self._ends_s = self._since_s + max(lifetime_s - _RESERVE_S, lifetime_s / 2)
        return self._token

    def _finish(self, token: str | CallError) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(token)


def _reason(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f", {error}" if _ERROR.fullmatch(error) else ""


def check_header_secret(text: str) -> None:
    """Check a secret that becomes a header, or a part of one.

    Raises:
        SecretError: no header can have this text; the message shows nothing of it.
    """
    if not is_header_value(text):
        raise SecretError("empty, too long, or with characters that are not visible ASCII or a space inside")
