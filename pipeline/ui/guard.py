"""Who may read and who may change something: a page on this machine is within reach of every web site one visits.

- The ``Host`` header must be one of the page's own, or a name that somebody else controls could be pointed at it.
- What another site's page embeds or submits is refused (``Sec-Fetch-Site``, ``Origin``), and every form carries a
  secret of its session.
- Changes need a sign-in with the token. The session's cookie is out of reach of scripts and of other sites' requests;
  there are no scripts, and none would be run (``Content-Security-Policy``).
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

LEAST_TOKEN: Final = 16
_SESSION_S: Final = 12 * 3600
_MOST_SESSIONS: Final = 100
_MOST_FORM_BYTES: Final = 64 * 1024
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers would send forms with an Origin of null
    "Cache-Control": "no-store",
}


def check_token(text: str) -> None:
    """Raises SecretError for a text that is no token: short ones could be guessed."""
    if len(text) < LEAST_TOKEN or not text.isprintable() or " " in text:
        raise SecretError(f"no token, allowed: {LEAST_TOKEN} printable ASCII characters or more, no spaces")


class Guard:
    """Protects a Flask app that has pages ``sign_in`` and ``static``; ``hosts`` are its names, without port.

    Without ``token`` nobody can sign in. ``reads_need_it``: without a sign-in nothing can be read either.
    """

    def __init__(
        self,
        token: Secret | None,
        hosts: Sequence[str],
        reads_need_it: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token = token
        self._hosts = {one.lower() for one in hosts}
        self._reads_need_it = reads_need_it
        self._clock = clock
        self._until_s: dict[str, float] = {}  # sessions that are signed in

    @property
    def has_token(self) -> bool:
        """Whether it is possible to sign in."""
        return self._token is not None

    def protect(self, app: Flask) -> None:
        """Put it in front of every page."""
        app.secret_key = secrets.token_bytes(32)
        app.config.update(
            MAX_CONTENT_LENGTH=_MOST_FORM_BYTES,
            SESSION_COOKIE_NAME="event_trigger_ui",
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Strict",
        )
        app.before_request(self._check)
        app.after_request(_with_headers)

    def _check(self) -> AnyResponse | None:
        # Flask's own check (TRUSTED_HOSTS) knows no IPv6 addresses.
        if re.sub(":[0-9]*$", "", request.host.lower()) not in self._hosts:
            raise SecurityError("The Host header is none of this page's; see --allowed_host.")
        _check_site()
        if request.method == "POST":
            _check_form(request.host)
        if self._reads_need_it and not self.is_signed_in() and request.endpoint not in ("sign_in", "static"):
            return flask.redirect(flask.url_for("sign_in"), 303)
        return None

    def sign_in(self, given: str) -> bool:
        """Whether this is the token; if so, the session is signed in.

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
        alive = [(until_s, one) for one, until_s in self._until_s.items() if until_s > now_s]
        self._until_s = {one: until_s for until_s, one in sorted(alive)[1 - _MOST_SESSIONS :]}
        self._until_s[session["id"]] = now_s + _SESSION_S
        return True

    def sign_out(self) -> None:
        """End the session, for every copy of its cookie."""
        self._until_s.pop(session.get("id", ""), None)
        session.clear()

    def is_signed_in(self) -> bool:
        """Whether the session of the request is."""
        return self._until_s.get(session.get("id", ""), 0.0) > self._clock()

    def check_signed_in(self) -> None:
        """Raises Forbidden unless the session is signed in."""
        if not self.is_signed_in():
            raise Forbidden(
                "Sign in first." if self.has_token else "This page is read-only: it was started without --token."
            )


def form_secret() -> str:
    """What every form has to carry: only pages of this session know it."""
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
    given, wanted = request.form.get("form", ""), session.get("form")
    if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise Forbidden("This form is of another session: go back, reload the page and try again.")


def _with_headers(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response
