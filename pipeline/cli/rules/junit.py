"""Results of rules' cases as JUnit XML, which CI systems show."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from junitparser import Attr, Failure, IntAttr, JUnitXml, TestCase, TestSuite

from transforms.domain.simulation.case_runner import CaseResult


class _Case(TestCase):
    """A test case with the place where it is written."""

    file = Attr()
    line = IntAttr()


def write_junit_xml(results: Iterable[CaseResult], seconds: float, path: Path) -> None:
    """Write a report with a suite for each rule; ``seconds`` is the time that all cases took.

    Raises:
        OSError: the file cannot be written.
    """
    report = JUnitXml("rules")
    for rule, of_rule in itertools.groupby(results, lambda result: result.rule):
        suite = TestSuite(rule)
        suite.add_testcases([_case(result) for result in of_rule])
        report.append(suite)  # type: ignore[no-untyped-call]
    report.update_statistics()  # type: ignore[no-untyped-call]
    report.time = round(seconds, 3)
    report.write(str(path), pretty=True)


def _case(result: CaseResult) -> _Case:
    case = _Case(_xml_text(result.located.case.name), result.rule)
    case.file, case.line = str(result.located.file), result.located.line
    if not result.passed:
        text = _xml_text("\n".join(result.differences))
        failure = Failure(text.partition("\n")[0])
        failure.text = text
        case.result = [failure]
    return case


def _xml_text(text: str) -> str:
    """The text with a ``?`` for each character that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
