"""``python -m infra.release.requirements``: what the nodes' Python needs, for `make lock`.

Beam's extras name clients of Google's and of databases, some eighty packages. They are in the project's metadata,
because some of Beam's sources and sinks need them; none of this pipeline does, and no module of it imports one.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def requirements() -> list[str]:
    """The project's dependencies, each without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [re.sub(r"\[[^]]*\]", "", requirement) for requirement in project["dependencies"]]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{requirement}\n" for requirement in requirements()))
