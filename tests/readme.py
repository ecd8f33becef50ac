"""Writes the generated parts of the README and of docs/metrics.md; ``python -m tests.readme``."""

import re
from pathlib import Path

from pipeline.options import options_table
from transforms.domain.metric_names import metrics_table

README = Path(__file__).parent.parent / "README.md"
METRICS = README.parent / "docs" / "metrics.md"
_OPTIONS_PART = re.compile(r"(<!-- options:.*?-->\n).*?(<!-- /options -->)", re.DOTALL)
_METRICS_PART = re.compile(r"(<!-- metrics:.*?-->\n).*?(<!-- /metrics -->)", re.DOTALL)


def expected(text: str) -> str:
    """The README as it should be."""
    return _OPTIONS_PART.sub(lambda found: f"{found[1]}\n{options_table()}\n\n{found[2]}", text)


def expected_metrics(text: str) -> str:
    """docs/metrics.md as it should be."""
    return _METRICS_PART.sub(lambda found: f"{found[1]}\n{metrics_table()}\n\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(expected(README.read_text("utf-8")), "utf-8")
    METRICS.write_text(expected_metrics(METRICS.read_text("utf-8")), "utf-8")
