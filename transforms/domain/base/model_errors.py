"""What a value may be, in our words, where a pydantic model refuses one."""

from __future__ import annotations

import re
from typing import Any, Final

from transforms.domain.base.names import NAME, NAME_ALLOWED

_TEXT, _NUMBER, _WHOLE, _LIST, _MAPPING = "text", "a number", "a whole number", "a list", "a mapping"
# By pydantic's type of the error: what is allowed. Braces stand for values of the error's context.
_ALLOWED: Final = {
    "string_type": _TEXT,
    "string_sub_type": _TEXT,
    "string_unicode": _TEXT,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "null",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "iterable_type": _LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "{min_length} characters or more",
    "string_too_long": "{max_length} characters or less",
    "too_short": "{min_length} items or more",
    "too_long": "{max_length} items or less",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "union_tag_not_found": "a mapping with {discriminator}",
}
_PATTERNS: Final = {
    f"^{NAME}$": NAME_ALLOWED,
    r"^[A-Za-z0-9._-]{1,249}$": "1 to 249 of A-Z, a-z, 0-9, ., _ and -",
    r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,7}$": "a name, or a path like parameters.cart_id",
    r"^[A-Za-z_]\w*(\[\])?(\.[A-Za-z_]\w*(\[\])?){0,7}$": "a name, or a path like parameters.items[].sku",
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": "a time of day like 08:30",
    r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$": "a time of day like 08:30, or 24:00",
}


def allowed(details: Any) -> str:
    """``allowed is …``, or the message of our own validator; it follows the name and the value.

    Args:
        details: one of ``ValidationError.errors()``.
    """
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        return str(details["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return "no such field"
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"allowed is {_PATTERNS.get(pattern, f'text of the form {pattern}')}"
    text = _ALLOWED.get(kind, "something else").format_map(context)
    in_singular = re.sub(r"^1 (character|item)s", r"1 \1", text)
    return f"allowed is {in_singular}"
