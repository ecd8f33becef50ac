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

_KEYS: Final = (
    r"(?:api|access|account|private|signing|encryption|shared|master|hmac|hash|subscription|functions)[._ -]?key"
)
_NAMES: Final = (
    r"password|passwd|pwd|passphrase|pass[ _-]phrase|passcode|(?<![a-z])(?:pass|otp)(?![a-z])"
    r"|secret(?:[ _-](?:access[ _-])?key)?|token|sess(?:ion)?[ _-]?id|(?<![a-z0-9])_?auth(?![a-z])"
    rf"|{_KEYS}"
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
# A program's flag, its value after a space. Our own messages go on with one of these words after a flag's name.
_FLAG: Final = r"(?<![\w-])--?[\w-]{0,64}"
_AFTER_FLAG: Final = (
    r"(?:is|are|was|were|has|have|had|and|or|nor|but|of|with|without|for|in|to|from|that|which|who|must|may|can|cannot|names?"
    r"|needs?|takes?|gives?|lacks?|belongs?|reads?|says?|there|here|as|on|at|by|if|when|where|then|together|also|only|not|no|never)"
)
# In sentences: words for secrets, words that describe one without giving it, and what looks like a secret, not a word.
_SECRET_WORDS: Final = (
    r"(?:pass(?:word|wd|code|[ _-]?phrase)|pwd|secret(?:[ _-](?:access[ _-])?key)?|token|credentials?"
    rf"|{_KEYS})"
)
_DESCRIPTIONS: Final = (
    r"(?:\w*(?:ed|ing|able|ible|ly|less|en|ent|ary|ive|al|ect|id|ong|ty)|not|no|a|an|the|too|of|in|on|for|to|from|as|at|by"
    r"|set|read|here|there|what|which|where|when|that|this|one|only|just|also|now|never|still|kept|sent|ours?|its|their|more"
    r"|than|short|long|weak|null|none|good|fine|out|old|new|with|without|due|hard|up)"
)
# Names of algorithms and formats, which have digits as secrets do.
_STANDARDS: Final = r"(?:PKCS|SHA|SCRAM|RSA|AES|UTF|BASE|OAUTH|HTTP|TLS|X\.?509)"
_SECRET_LIKE: Final = (
    rf"(?!{_REFERENCE}|\[hidden\]|/|\d{{4}}-\d\d-\d\d|[^\s]{{0,32}}://|{_STANDARDS}\b"
    rf"""|{_STANDARDS}[ #_-]?v?\d)"""
    r"""(?:(?=[^\s,;)"'<>]{0,256}\d)(?=[^\s,;)"'<>]{0,256}[A-Za-z])[^\s,;)"'<>]{6,}|\d{6,})"""
)

_Replacement = str | Callable[[re.Match[str]], str]
_SECRET_TEXTS: Final[tuple[tuple[re.Pattern[str], _Replacement], ...]] = (
    # PEM, also without its end.
    (
        re.compile(
            r"----[- ]BEGIN(?: |%20|\+)[A-Z0-9 %+]{0,60}PRIVATE(?: |%20|\+)KEY(?:(?: |%20|\+)BLOCK)?[- ]----"
            r"(?:(?!----[- ]END).)*(?:----[- ]END [A-Z0-9 ]{0,60}[- ]----)?",
            re.DOTALL,
        ),
        HIDDEN,
    ),
    # PEM without its begin: lines of 64 characters, and what is before its end.
    (
        re.compile(
            r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{64}(?:(?:\\r)?(?:\\n|\s){1,2}[A-Za-z0-9+/]{64})+"
            r"(?:(?:\\r)?(?:\\n|\s){1,2}[A-Za-z0-9+/]{1,63}={0,2}(?![A-Za-z0-9+/]))?"
        ),
        HIDDEN,
    ),
    (
        re.compile(
            r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{4,}(?=(?:\\r|\\n|\s){0,4}----[- ]END [A-Z0-9 ]{0,40}PRIVATE KEY)"
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
    # Cookies by their attributes, and as Python shows them.
    (
        re.compile(
            r"((?<!\S)[\w.-]{1,64}=)[^;\s]+(?=;\s{0,2}(?:httponly|secure|samesite|path=|max-age|expires|domain=))",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(\bcookie\s{1,4}[\w.-]{1,64}=)[^\s>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bset-cookie[ \t]{1,8})(?!is\b|header)\S+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # JSON Web Tokens, encrypted ones, and sessions of Flask.
    (re.compile(r"(?<![\w.-])\.eJ[\w-]{5,}(?:\.[\w-]+){2}"), HIDDEN),
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
    (
        re.compile(
            r"\b(Bearer(?:\s{1,4}token)?)(?:\s{1,8}|\s{0,4}[:=]\s{0,4})(?!auth\w*|tokens?\b|credentials?\b|scheme|realm=|\[hidden)[!-~]+",
            re.IGNORECASE,
        ),
        rf"\1 {HIDDEN}",
    ),
    # Basic is a word, too.
    (re.compile(r"\b(Basic)\s{1,8}(?![A-Za-z][a-z]*(?:[\s.,;:)]|$))[!-~]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # User and password of URLs; a password may contain @, / and other characters that it should not.
    (re.compile(r"""(?<=//)[^/?#\s:@"'<>]{0,256}:(?!\d{1,5}[/?#])[^\s"'<>]{0,512}@"""), f"{HIDDEN}@"),
    (re.compile(r"(?<=://)[^/?#\s\"'<>]{1,512}@"), f"{HIDDEN}@"),
    (re.compile(r"((?<!\S)[\w.-]{1,64}:)[^\s@/]{1,128}(?=@[\w.-]{1,253}:\d{2,5}\b)"), rf"\1{HIDDEN}"),
    (re.compile(r"(jdbc:oracle:\w{1,8}:)[^\s@]+@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(r"((?<!\S)(?:-u|--user)[ =]{0,2}[^\s:]{1,64}:)\S+"), rf"\1{HIDDEN}"),
)
# Secrets that are found by a name before them. Most texts have none of the names.
_SECRETS_BY_NAME: Final[tuple[tuple[re.Pattern[str], _Replacement], ...]] = (
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
    # Flags and values with a space between them, and .netrc.
    (
        re.compile(
            rf"({_FLAG}(?:{_NAMES})[\w-]{{0,64}}[ \t]{{1,8}})(?!-|{_AFTER_FLAG}(?:[\s.,;:)]|$)|{_REFERENCE})\S+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(\blogin[ \t]{1,8}\S{1,128}\s{1,8}password[ \t]{1,8})\S+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"""({_SECRET_WORDS}(?:[ \t]{{1,4}}(?:is|was))?[ \t(]{{1,4}}b?(["']))(?!{_REFERENCE})"""
            r"""(?:\\.|(?!\2)[^\\]){4,}""",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            rf"({_SECRET_WORDS}(?:(?:[ \t]{{1,4}}(?:is|was))?[ \t(:]{{1,4}}|[ \t]{{0,4}}->[ \t]{{0,4}})){_SECRET_LIKE}",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            rf"({_SECRET_WORDS}[ \t]{{1,4}}(?:is|was)[ \t]{{1,4}})(?!{_DESCRIPTIONS}\b|{_REFERENCE})"
            r"(?-i:[A-Za-z][a-z]{3,63})(?=[.,;!]?(?:\s|$))",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # Values that a class shows of itself.
    (
        re.compile(
            rf"""((?:{_NAMES})[\w.]{{0,64}}\((?:\w{{1,32}}=)?b?(["']))(?!{_REFERENCE})(?:\\.|(?!\2)[^\\])*""",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1{HIDDEN}",
    ),
    # Lists and maps of YAML below such a name.
    (
        re.compile(
            rf"""((?:{_NAMES})(?!{_ERROR})[\w.-]{{0,64}}["']?[ \t]{{0,8}}:[ \t]{{0,8}}\r?\n)"""
            r"(?:[ \t]{0,64}-|[ \t]{1,64}[\w.-]{1,64}:)[ \t][^\r\n]+(?:\r?\n(?:[ \t]{1,64}|-[ \t])[^\r\n]+)*",
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
            rf"""(?:(?:\\*["']|%22|&quot;)?\s{{0,8}}{_IS}[=>]{{0,2}}|\\*["']\s{{0,8}},(?=\s{{0,8}}{_OPEN}))\s{{0,8}})"""
            rf"""(?!{_REFERENCE})(?:{_OPEN}(?={_REFERENCE})"""
            rf"""|(?P<open>b?(?P<quote>\\*(?:\"{{3}}|'{{3}}|\"\"(?=\w)|''(?=\w)|["'])))(?:\\.|(?!(?P=quote))[^\\])*"""
            # YAML's blocks, lists and maps of JSON and Python, and quotes of texts for people.
            rf"""|[|>][+-]?[ \t]{{0,8}}(?:\r?\n[ \t]{{1,64}}[^\r\n]+)+|[“«„][^”»“]*"""
            rf"""|[\[({{](?:[^\[\](){{}}]|[\[({{][^\[\](){{}}]*[\])}}])*[\])}}]?"""
            rf"""|(?:(?![,;&]\s{{0,8}}(?:amp;)?[\w.%-]{{1,64}}["']?\s{{0,8}}[=:]|["'](?!\w))\S)+)""",
            re.IGNORECASE | re.DOTALL,
        ),
        lambda found: found["reference"] or _hidden_value(found),
    ),
)


# Small numbers, words that say why there is no value, and lists of references.
_NO_SECRET: Final = re.compile(
    r"""\d{1,3}[,.)\]}]*|(?:not|no|none|null|true|false|missing|unset|empty|unknown|wrong|invalid|required|expired)[,.;)\]}]*"""
    rf"""|[\[({{](?:[\s,]{{0,8}}(?:["']?secret["']?:\s?)?["']?(?:{_REFERENCE})[\w/.@+#=:-]*["']?){{1,8}}\s{{0,8}}[\])}}]""",
    re.IGNORECASE,
)


def _hidden_value(found: re.Match[str]) -> str:
    value = found[0][len(found["name"]) :]
    if found["open"] is None and (re.fullmatch(_OPEN, value) or _NO_SECRET.fullmatch(value)):
        return found[0]  # a reference in quotes follows, or nothing that is secret
    if re.fullmatch(r"\d{1,12}[,.)\]}]*", value) and re.search(
        r"tokens|count|size|seconds|bytes|_ms", found["name"], re.IGNORECASE
    ):
        return found[0]
    return f"{found['name']}{found['open'] or ''}{HIDDEN}"


def without_secrets(text: str) -> str:
    """The text with ``[hidden]`` in place of each secret."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    if _SECRET_KEY.search(text):
        for pattern, replacement in _SECRETS_BY_NAME:
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
