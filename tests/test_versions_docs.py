"""docs/versions.md names every class of ours that lies in a package of Flink, its connector or Beam."""

from __future__ import annotations

from tests.newest_beam import ROOT


def test_every_class_in_a_package_of_others_is_in_what_a_move_takes() -> None:
    text = (ROOT / "docs" / "versions.md").read_text("utf-8")
    java = ROOT / "runners" / "flink" / "connectors" / "src" / "main" / "java"
    classes = [str(path.relative_to(ROOT).with_suffix("")) for path in java.glob("org/**/*.java")]
    assert len(classes) >= 4
    assert [name for name in classes if f"`{name}" not in text] == []
