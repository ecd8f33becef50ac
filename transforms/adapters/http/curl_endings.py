"""What libcurl reports at the end of a call, and what of it is the server's, the network's or nobody's fault."""

from __future__ import annotations

import os
import select
import socket
import zlib
from typing import Final

import pycurl

from transforms.adapters.http.calls import CallError
from transforms.domain.users.fetched_user import BAD_ANSWER, CONNECTION, OTHER, TIMEOUT, TOO_LARGE

HEADERS_TOO_LARGE: Final = 100  # CURLE_TOO_LARGE, which pycurl does not name

# An answer came, but not as HTTP: another attempt gets the same.
_UNUSABLE: Final = (
    pycurl.E_FTP_WEIRD_SERVER_REPLY,
    pycurl.E_UNSUPPORTED_PROTOCOL,
    pycurl.E_BAD_CONTENT_ENCODING,
    HEADERS_TOO_LARGE,
)
# The request could not be made: no server's fault.
_UNMADE: Final = (
    pycurl.E_URL_MALFORMAT,
    pycurl.E_FAILED_INIT,
    pycurl.E_NOT_BUILT_IN,
    pycurl.E_BAD_FUNCTION_ARGUMENT,
    pycurl.E_UNKNOWN_OPTION,
)
_UNTRUSTED: Final = (
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_ISSUER_ERROR,
)
_GZIP: Final = b"\x1f\x8b"


def has_input(descriptor: int) -> bool:
    """Whether something came over a connection, its end included."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))


def is_cut_off(handle: pycurl.Curl) -> bool:
    """Whether an answer without a body ended in its headers.

    libcurl takes such headers for complete ones, and the closed connection for one that can be used again.
    """
    descriptor = handle.getinfo(pycurl.ACTIVESOCKET)
    if descriptor < 0 or handle.getinfo(pycurl.CONTENT_LENGTH_DOWNLOAD_T) >= 0:
        return False
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        try:
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


def call_error(code: int, message: str) -> CallError:
    """What a code and a message of libcurl mean to the caller."""
    # Broken chunks have the code of a connection that was reset.
    if code in _UNUSABLE or (code == pycurl.E_RECV_ERROR and "chunk" in message):
        return CallError(BAD_ANSWER, message)
    if code in _UNMADE:
        return CallError(OTHER, message)
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return CallError(TIMEOUT, message, passing=True, down=True)
    return CallError(CONNECTION, message, passing=code not in _UNTRUSTED, down=True)


def decoded(body: bytearray, max_bytes: int) -> bytes:
    """A body without its gzip encoding. JSON never begins like gzip, so the header is not needed.

    Raises:
        CallError: the encoding is broken or ends early, or the body has over ``max_bytes``.
    """
    if not body.startswith(_GZIP):
        return bytes(body)
    result = bytearray()
    rest = bytes(body)
    while rest:  # members of gzip follow each other
        decoder = zlib.decompressobj(wbits=31)
        try:
            result += decoder.decompress(rest, max_bytes + 1 - len(result))
        except zlib.error:
            raise CallError(BAD_ANSWER, "not gzip, as its encoding says") from None
        if len(result) > max_bytes:
            raise CallError(TOO_LARGE, f"over {max_bytes} bytes")
        if not decoder.eof:
            raise CallError(CONNECTION, "the answer's gzip encoding ends early", passing=True, down=True)
        rest = decoder.unused_data.lstrip(b"\0")  # padding, as gzip itself allows
    return bytes(result)
