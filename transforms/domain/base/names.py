"""What names of rules, actions, groups and destinations may look like."""

from typing import Final

NAME: Final = r"[a-z0-9_-]{1,64}"  # a regular expression, without anchors
NAME_ALLOWED: Final = "1 to 64 of a-z, 0-9, _ and -"
