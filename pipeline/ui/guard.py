"""Who may read and change something. Every web site that a user visits can send requests to a page on this machine.

- The ``Host`` header must be one of the page's names. Otherwise an attacker could point a domain at the page.
- Requests that another site's page embeds or submits are refused (``Sec-Fetch-Site``, ``Origin``), and every form
  carries a secret of its session.
- Changes need a sign-in with the token. Neither scripts nor other sites' requests have the session's cookie.
- Pages have no scripts, and browsers would run none (``Content-Security-Policy``). Only pages of ``LIVE`` run one file
  of ours, which fetches the page again.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import flask
from flask import Flask, Response, request, session
from werkzeug.exceptions import Forbidden, SecurityError
from werkzeug.wrappers import Response as AnyResponse

from transforms.adapters.secrets import Secret
from transforms.domain.base.secret_references import SecretError

MIN_TOKEN_LENGTH: Final = 16
_SESSION_S: Final = 12 * 3600
_MAX_SESSIONS: Final = 100
_MAX_FORM_BYTES: Final = 64 * 1024
# What anyone may request: no user's data is in it.
_OPEN: Final = ("sign_in", "static", "health")
# Endpoints of pages that renew themselves.
LIVE: Final = ("overview", "rules")
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers would send forms with an Origin of null
    "Cache-Control": "no-store",
}


def check_token(text: str) -> None:
    """Raise SecretError for a text that is no token: a short one could be guessed."""
    if len(text) < MIN_TOKEN_LENGTH or not text.isprintable() or " " in text:
        raise SecretError(f"no token, allowed: {MIN_TOKEN_LENGTH} printable ASCII characters or more, no spaces")


class Guard:
    """Protects a Flask app that has the endpoints ``sign_in`` and ``static``.

    Args:
        token: the token to sign in with; without it nobody can sign in.
        hosts: the page's host names, without port.
        reads_need_it: whether reading needs a sign-in, too.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        token: Secret | None,
        hosts: Sequence[str],
        reads_need_it: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token
        self._hosts = {host.lower() for host in hosts}
        self._reads_need_it = reads_need_it
        self._clock = clock
        self._ends_s: dict[str, float] = {}  # when each signed-in session ends, by its id

    @property
    def has_token(self) -> bool:
        """Whether it is possible to sign in."""
        return self._token is not None

    def protect(self, app: Flask) -> None:
        """Check every request to the app, and set the headers of every response."""
        app.secret_key = secrets.token_bytes(32)
        app.config.update(
            MAX_CONTENT_LENGTH=_MAX_FORM_BYTES,
            SESSION_COOKIE_NAME="event_trigger_ui",
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Strict",
        )
        app.before_request(self._check)
        app.after_request(_with_headers)

    def _check(self) -> AnyResponse | None:
        # Flask's own check (TRUSTED_HOSTS) cannot compare IPv6 addresses.
        if re.sub(":[0-9]*$", "", request.host.lower()) not in self._hosts:
            raise SecurityError("The Host header is none of this page's; see --allowed_host.")
        _check_site()
        if request.method == "POST":
            _check_form(request.host)
        if self._reads_need_it and not self.is_signed_in() and request.endpoint not in _OPEN:
            return flask.redirect(flask.url_for("sign_in"), 303)
        return None

    def sign_in(self, given: str) -> bool:
        """Sign the session in if ``given`` is the token; returns whether it is.

        Raises:
            SecretError: the token cannot be read.
        """
        if self._token is None:
            return False
        if not hmac.compare_digest(given.encode(), self._token.text().encode()):
            return False
        session.clear()
        session["id"] = secrets.token_urlsafe(32)
        now_s = self._clock()
        alive = sorted((end_s, session_id) for session_id, end_s in self._ends_s.items() if end_s > now_s)
        self._ends_s = {session_id: end_s for end_s, session_id in alive[1 - _MAX_SESSIONS :]}
        self._ends_s[session["id"]] = now_s + _SESSION_S
        return True

    def sign_out(self) -> None:
        """End the session, for every copy of its cookie."""
        self._ends_s.pop(session.get("id", ""), None)
        session.clear()

    def is_signed_in(self) -> bool:
        """Whether the request's session is signed in."""
        return self._ends_s.get(session.get("id", ""), 0.0) > self._clock()

    def check_signed_in(self) -> None:
        """Raise Forbidden unless the request's session is signed in."""
        if not self.is_signed_in():
            raise Forbidden(
                "Sign in first." if self.has_token else "This page is read-only: it was started without --token."
            )


def form_secret() -> str:
    """The secret that every form has to carry. Only pages of the session contain it."""
    if "form" not in session:
        session["form"] = secrets.token_urlsafe(32)
    return str(session["form"])


def _check_site() -> None:
    site, mode = request.headers.get("Sec-Fetch-Site"), request.headers.get("Sec-Fetch-Mode")
    is_link = request.method == "GET" and mode == "navigate" and request.headers.get("Sec-Fetch-Dest") == "document"
    if site in ("cross-site", "same-site") and not is_link:
        raise Forbidden("Another site's page asked for this.")


def _check_form(host: str) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise Forbidden("Another site's page sent this form.")
    given, expected = request.form.get("form", ""), session.get("form")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise Forbidden("This form is of another session: go back, reload the page and try again.")


def _with_headers(response: Response) -> Response:
    response.headers.update(_HEADERS)
    if request.endpoint in LIVE:
        response.headers["Content-Security-Policy"] = f"{_POLICY}; script-src 'self'; connect-src 'self'"
    return response
