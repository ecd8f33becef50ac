"""Who may read and change something. Every web site that a user visits can send requests to a page on this machine.

- The ``Host`` header must be one of the page's names. Otherwise an attacker could point a domain at the page.
- Requests that another site's page embeds or submits are refused (``Sec-Fetch-Site``, ``Origin``), and every form
  carries a secret of its session.
- Changes need a sign-in with the token. Who tries tokens has to wait longer and longer. Neither scripts nor other
  sites' requests have the session's cookie, and behind a proxy with TLS it never leaves TLS.
- What a link of another site opens writes nothing, not even a question to the job (``comes_from_elsewhere``).
- Pages have no scripts, and browsers would run none (``Content-Security-Policy``). Only pages of ``LIVE`` run one file
  of ours, which fetches the page again.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import flask
from flask import Flask, Response, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import Forbidden, SecurityError, TooManyRequests
from werkzeug.wrappers import Response as AnyResponse

from pipeline.ui.throttle import Throttle
from transforms.adapters.secrets import Secret

_LOG: Final = logging.getLogger("event_trigger.ui")
_SESSION_S: Final = 12 * 3600
_MAX_SESSIONS: Final = 100
_MAX_FORM_BYTES: Final = 64 * 1024
# What anyone may request: no user's data is in it.
OPEN: Final = ("sign_in", "sign_out", "static", "health")
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


class _Sessions(SecureCookieSessionInterface):
    """Sessions whose cookie browsers send through TLS alone, if it came through TLS."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


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
        self._hosts = {_host(name) for name in hosts}
        self._reads_need_it = reads_need_it
        self._clock = clock
        self._throttle = Throttle(clock)
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
        app.session_interface = _Sessions()
        app.before_request(self._check)
        app.after_request(_with_headers)

    def _check(self) -> AnyResponse | None:
        # Flask's own check (TRUSTED_HOSTS) cannot compare IPv6 addresses.
        if _host(re.sub(":[0-9]*$", "", request.host)) not in self._hosts:
            raise SecurityError("The Host header is none of this page's; see --allowed_host.")
        _check_site()
        if request.method == "POST":
            _check_form()
        if self._reads_need_it and not self.is_signed_in() and request.endpoint not in OPEN:
            return flask.redirect(flask.url_for("sign_in"), 303)
        return None

    def sign_in(self, given: str) -> bool:
        """Sign the session in if ``given`` is the token; returns whether it is.

        Raises:
            SecretError: the token cannot be read.
            TooManyRequests: the address of the request has given too many wrong ones.
        """
        if self._token is None:
            return False
        address = request.remote_addr or ""
        if wait_s := math.ceil(self._throttle.wait_s(address)):
            raise TooManyRequests(f"Too many wrong tokens. Try again in {wait_s} s.", retry_after=wait_s)
        if not hmac.compare_digest(given.encode(errors="surrogatepass"), self._token.text().encode()):
            count = self._throttle.failed(address)
            _LOG.warning("a wrong token from %s, number %d", address, count)
            return False
        self._throttle.succeeded(address)
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


def comes_from_elsewhere() -> bool:
    """Whether another site's page, which may open this one to have something happen, has led here."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")  # none: typed, or a bookmark
    referrer = request.headers.get("Referer")  # of browsers before 2023
    return referrer is not None and _site_of(referrer)[1] != request.host.lower()


def _site_of(address: str) -> tuple[str, str]:
    """Scheme, and host with port, of an address that anyone may have sent; of what is none, nothing."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.lower()


def _host(name: str) -> str:
    """A host's name, or an IP address in one of its forms, to compare."""
    try:
        return str(ip_address(name.strip("[]").partition("%")[0]))
    except ValueError:
        return name.lower().removesuffix(".")


def _check_form() -> None:
    origin = request.headers.get("Origin")
    scheme, site = _site_of(f"{request.scheme}://{request.host}" if origin is None else origin)
    # Without --trusted_proxy this server does not know of the proxy's TLS.
    if site != request.host.lower() or scheme not in (("https",) if request.is_secure else ("http", "https")):
        raise Forbidden("Another site's page sent this form.")
    given, expected = request.form.get("form", ""), session.get("form")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise Forbidden("This form is of another session: go back, reload the page and try again.")


def _with_headers(response: Response) -> Response:
    response.headers.update(_HEADERS)
    if request.endpoint in LIVE:
        response.headers["Content-Security-Policy"] = f"{_POLICY}; script-src 'self'; connect-src 'self'"
    return response
