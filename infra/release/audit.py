"""``make audit``: known vulnerabilities of what a release holds, as the OSV database has them.

The release's bill of materials (`make release` writes it) says what that is: Python packages, jars and what is shaded
into them. 0: none is known; 1: some are; 2: there is no bill; 3: the database cannot be reached, so nothing is known.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import requests

ROOT = Path(__file__).resolve().parent.parent.parent
BILL: Final = ROOT / "build" / "release" / "bom.cdx.json"
DATABASE: Final = "https://api.osv.dev"
_AT_ONCE: Final = 500
_TIMEOUT_S: Final = 30.0
_ECOSYSTEMS: Final = ("pkg:pypi/", "pkg:maven/")


def main(argv: Sequence[str]) -> int:
    """Ask the database; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.release.audit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bill", type=Path, default=BILL, help="what to look up")
    parser.add_argument("--database", default=DATABASE, help="URL of an OSV database")
    arguments = parser.parse_args(argv)
    try:
        bill = json.loads(arguments.bill.read_text())
    except OSError as error:
        sys.stderr.write(f"error: {arguments.bill}: {error.strerror}; make release writes it\n")
        return 2
    packages = sorted(set(purls(bill["components"])))
    asked = [purl for purl in packages if purl.startswith(_ECOSYSTEMS) and "@" in purl]
    try:
        found = dict(vulnerable(asked, arguments.database))
    except (requests.RequestException, ValueError, KeyError) as error:
        problem = f"{arguments.database} cannot be asked ({type(error).__name__})"
        sys.stderr.write(f"error: {problem}: nothing is known of {len(asked)} packages\n")
        return 3
    for purl, names in found.items():
        sys.stdout.write(f"{purl}  {' '.join(names)}\n")
    for purl in sorted(set(packages) - set(asked)):
        sys.stdout.write(f"{purl}  not looked up: the database does not know its kind or version\n")
    sys.stdout.write(f"{len(found)} of {len(asked)} packages have known vulnerabilities\n")
    return 1 if found else 0


def purls(components: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The package URLs of components and of what is inside them."""
    for component in components:
        yield component["purl"]
        yield from purls(component.get("components", ()))


def vulnerable(asked: Sequence[str], database: str) -> Iterator[tuple[str, list[str]]]:
    """The packages with known vulnerabilities, and the names of these."""
    for first in range(0, len(asked), _AT_ONCE):
        some = asked[first : first + _AT_ONCE]
        queries = [{"package": {"purl": purl}} for purl in some]
        answer = requests.post(f"{database}/v1/querybatch", json={"queries": queries}, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        results = answer.json()["results"]
        if len(results) != len(some):
            raise ValueError("another number of results than of queries")
        for purl, result in zip(some, results, strict=True):
            if names := [entry["id"] for entry in (result or {}).get("vulns") or ()]:
                yield purl, names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
