"""What no log, terminal or page shows: each secret that a text or a field holds becomes ``[hidden]``.

Whoever writes text that others made (libraries, Flink, Kafka, receivers) has it go through here, so that all agree on
what is hidden. In doubt more is hidden than is secret: the rest of a line with a header, for example. The patterns run
in linear time, because the texts come from outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

HIDDEN: Final = "[hidden]"

_NAMES: Final = (
    r"password|passwd|pwd|passphrase|pass[ _-]phrase|passcode|(?<![a-z])pass(?![a-z])"
    r"|secret(?:[ _-](?:access[ _-])?key)?|token|sess(?:ion)?[ _-]?id|(?<![a-z0-9])_?auth(?![a-z])"
    r"|(?:api|access|account|private|signing|encryption|shared|master|hmac|hash)[._ -]?key"
    r"|authorization|cookie|credential|signature|jaas"
)
_SECRET_KEY: Final = re.compile(_NAMES, re.IGNORECASE)
_HEADERS: Final = r"(?<![\w-])((?:proxy-)?authorization|(?:set-)?cookie)\b"
# TokenExpiredException: what follows is a message.
_ERROR: Final = r"[\w.]{0,64}(?:Error|Exception):"
_REFERENCE: Final = r"env:|file:|aws-secret:"
# JSON in JSON has a backslash before its quotes, texts of bytes a letter.
_OPEN: Final = r"""b?\\*["']"""
# How names and values are joined, also in URLs and in JSON that escapes for HTML.
_IS: Final = r"(?:[=:]|%3D|%3A|\\u003[da])"
# A program's flag, its value after a space. Our own messages go on with a word after a flag's name.
_FLAG: Final = r"(?<![\w-])--?[\w-]{0,64}"

_Replacement = str | Callable[[re.Match[str]], str]
_SECRET_TEXTS: Final[tuple[tuple[re.Pattern[str], _Replacement], ...]] = (
    # PEM, also without its end.
    (
        re.compile(
            r"----[- ]BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?[- ]----"
            r"(?:(?!----[- ]END).)*(?:----[- ]END [A-Z0-9 ]{0,60}[- ]----)?",
            re.DOTALL,
        ),
        HIDDEN,
    ),
    # Headers with a value in quotes: of JSON, of dicts and of pairs.
    (
        re.compile(
            rf"""{_HEADERS}(\\*["']\s{{0,8}}[:=,]\s{{0,8}}[\[(]?b?\\*(["']))(?!\s|{_REFERENCE})(?:\\.|(?!\3)[^\\])*""",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1\2{HIDDEN}",
    ),
    # Headers as they are sent, to the end of the line, and lines that continue them; stack traces do not.
    (
        re.compile(
            rf"{_HEADERS}([ \t]{{0,8}}{_IS}[ \t]{{0,8}})(?!\s|{_REFERENCE})[^\r\n]+"
            r"(?:\r?\n[ \t]{1,8}(?!\s|at |File |\.\.\.|caused)[^\r\n]+)*",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    # JSON Web Tokens, and encrypted ones.
    (re.compile(r"(?<![A-Za-z0-9_-])(?:eyJ|eyA|ewo|ewk)[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)+"), HIDDEN),
    # Parameters of signed URLs; in HTML the ampersand is followed by amp;.
    (
        re.compile(
            r"""((?:[?&]|&amp;|%3F|%26)(?:sig|code|key|otp|jwt|hmac|access|assertion)(?:=|%3D))[^&\s"']+""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Keys and tokens that show by their form whose they are.
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), HIDDEN),
    (re.compile(r"\bv1,[A-Za-z0-9+/=]{20,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (
        re.compile(
            r"\b(?:gh[pousr]_|github_pat_|glpat-|glsa_|xapp-|xox[a-z]-|[sr]k_live_|sk-|AIza|npm_|pypi-|hf_|hv[sb]\.|ya29\."
            r"|SG\.|dop_v1_|shp[a-z]{2}_|AGE-SECRET-KEY-1)[A-Za-z0-9_.-]{16,}"
        ),
        HIDDEN,
    ),
    # Webhooks whose address is the secret.
    (
        re.compile(
            r"(hooks\.slack\.com/(?:services|workflows)/|discord(?:app)?\.com/api/(?:v\d+/)?webhooks/|api\.telegram\.org/bot"
            r"|webhook\.office\.com/webhookb2/|hooks\.zapier\.com/hooks/|hook\.[\w.-]{1,32}make\.com/)[^\s\"'<>]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(Bearer|Basic)\s{1,8}[!-~]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # User and password of URLs; a password may contain @, / and other characters that it should not.
    (re.compile(r"""(?<=//)[^/?#\s:@"'<>]{0,256}:(?!\d{1,5}[/?#])[^\s"'<>]{0,512}@"""), f"{HIDDEN}@"),
    (re.compile(r"(?<=://)[^/?#\s\"'<>]{1,512}@"), f"{HIDDEN}@"),
    (re.compile(r"(jdbc:oracle:\w{1,8}:)[^\s@]+@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    # Elements of XML, and names and values beside each other, as "name": "password", "value": "...".
    (
        re.compile(
            rf"(<[\w:.-]{{0,64}}?(?:{_NAMES})[\w:.-]{{0,64}}(?:\s[^<>]{{0,256}})?>)(?:<!\[CDATA\[(?:(?!\]\]>).)*|[^<]+)",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            rf"""(\b(?:name|key)\\*["']?\s{{0,8}}[=:]\s{{0,8}}\\*["'][\w.-]{{0,64}}?(?:{_NAMES})[\w.-]{{0,64}}\\*["'][\s,]{{0,8}}"""
            rf"""\\*["']?value\\*["']?\s{{0,8}}[=:]\s{{0,8}}\\*(["']))(?!{_REFERENCE})(?:\\.|(?!\2)[^\\])*""",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1{HIDDEN}",
    ),
    # Flags and values with a space between them; curl's users; .netrc; what is quoted after the word.
    (
        re.compile(
            rf"({_FLAG}(?:{_NAMES})[\w-]{{0,64}}[ \t]{{1,8}})(?!-|[a-z]{{1,12}}(?:[\s.,;:)]|$)|{_REFERENCE})\S+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"((?<!\S)(?:-u|--user)[ =]{0,2}[^\s:]{1,64}:)\S+"), rf"\1{HIDDEN}"),
    (re.compile(r"(\blogin[ \t]{1,8}\S{1,128}\s{1,8}password[ \t]{1,8})\S+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"""(\b(?:password|passwd|passphrase|pass phrase|secret|api key) (?:is |was )?(["']))(?!{_REFERENCE})"""
            r"""(?:\\.|(?!\2)[^\\])*""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Values whose name says that they are secret, but for references as env:API_TOKEN, which only name one. Without
    # quotes a value ends where white space or the next name begins.
    (
        re.compile(
            rf"""(?P<reference>\benv:\w+|\bfile:/[\w/.@+-]*|\baws-secret:[\w/+=.@:#-]+)"""
            rf"""|(?P<name>(?:{_NAMES})(?!{_ERROR})[\w.-]{{0,64}}"""
            rf"""(?:(?:\\*["']|%22|&quot;)?\s{{0,8}}{_IS}|\\*["']\s{{0,8}},(?=\s{{0,8}}{_OPEN}))\s{{0,8}})"""
            rf"""(?!{_REFERENCE})(?:{_OPEN}(?={_REFERENCE})"""
            rf"""|(?P<open>b?(?P<quote>\\*(?:\"{{3}}|'{{3}}|\"\"(?=\w)|''(?=\w)|["'])))(?:\\.|(?!(?P=quote))[^\\])*"""
            # YAML's blocks, and quotes of texts for people.
            rf"""|[|>][+-]?[ \t]{{0,8}}(?:\r?\n[ \t]{{1,64}}[^\r\n]+)+|[“«„][^”»“]*"""
            rf"""|(?:(?![,;&]\s{{0,8}}(?:amp;)?[\w.%-]{{1,64}}["']?\s{{0,8}}[=:]|["'](?!\w))\S)+)""",
            re.IGNORECASE | re.DOTALL,
        ),
        lambda found: found["reference"] or _hidden_value(found),
    ),
)


def _hidden_value(found: re.Match[str]) -> str:
    value = found[0][len(found["name"]) :]
    if found["open"] is None and value[-1:] in "'\"" and re.fullmatch(_OPEN, value):
        return found[0]  # a reference in quotes follows
    return f"{found['name']}{found['open'] or ''}{HIDDEN}"


def without_secrets(text: str) -> str:
    """The text with ``[hidden]`` in place of each secret."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def without_secret_values(key: str, value: Any) -> Any:
    """A value of a log or document without secrets, itself and what it holds; ``key`` is its name."""
    if _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        texts = {str(name): item for name, item in value.items()}
        return {without_secrets(name): without_secret_values(name, item) for name, item in texts.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [without_secret_values("", item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_secrets(value if isinstance(value, str) else _text_of(value))


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a value of another program; its error may hold what it holds
        return f"[{type(value).__name__} without text: {type(error).__name__}]"
