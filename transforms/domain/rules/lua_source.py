"""A Lua text as a field of a rule."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field

MAX_LUA_BYTES: Final = 64 * 1024


def _within_limit(text: str) -> str:
    if len(text.encode()) > MAX_LUA_BYTES:
        raise ValueError(f"{len(text.encode())} bytes of Lua, allowed are {MAX_LUA_BYTES}")
    return text


Lua = Annotated[str, Field(min_length=1), AfterValidator(_within_limit)]
