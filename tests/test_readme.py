"""The tables that `make readme` writes match the code."""

import xml.etree.ElementTree as ElementTree

import pytest

from pipeline.errors import OptionError
from pipeline.launch.options import parse
from pipeline.launch.options.settings import OPTIONS
from tests.readme import CONFIGURATION, DOCS, expected, options_tables

FLINK = ["--runner=FlinkRunner", "--bootstrap_servers=b:9092", "--rules=r"]


def test_the_options_are_those_that_the_code_gives() -> None:
    text = CONFIGURATION.read_text("utf-8")

    assert text == expected(text), "run make readme"


def test_every_option_has_a_row_and_bounds_are_those_that_hold() -> None:
    rows = {
        row.split("`")[1]: [cell.strip() for cell in row.split(" | ")]
        for row in options_tables().splitlines()
        if "`--" in row
    }

    assert set(rows) == {f"--{name}" for name in OPTIONS}
    for option in OPTIONS.values():
        if option.least is not None and option.name not in ("starting_timestamp_ms", "decision_sample"):
            allowed = rows[f"--{option.name}"][4]
            least = allowed.removeprefix("from ").partition(" to ")[0]
            with pytest.raises(OptionError, match=f"--{option.name} is"):
                parse([f"--{option.name}={float(least) - 1:g}"])


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["--runner=FlinkRunner", "--rules=r"], "--bootstrap_servers is missing"),
        (["--bootstrap_servers=b:9092"], "--rules is missing"),
        ([*FLINK[1:], "--delivery_guarantee=EXACTLY_ONCE"], "allowed on DirectRunner"),
        ([*FLINK, "--delivery_guarantee=EXACTLY_ONCE", "--transaction_timeout_ms=100000"], r"at least \d+"),
        (["--starting_offsets=timestamp"], "belong together"),
        (["--starting_timestamp_ms=1"], "belong together"),
        (["--rules_topic=t"], "give --bootstrap_servers"),
        ([*FLINK, "--rules_topic=t", "--user_shards=0"], "--user_shards from 1 on"),
        ([*FLINK, "--rules_topic=t", "--isolation_level=read_uncommitted"], "read_committed"),
        ([*FLINK, "--rules_topic=event-actions"], "a topic of its own"),
        (["--decisions_topic=t"], "bundled stream has no Kafka"),
        ([*FLINK, "--decisions_topic=event-actions"], "a topic of its own"),
        ([*FLINK[1:], "--decisions_topic=t", "--decisions_file=f"], "one decision log"),
        ([*FLINK[1:], "--deliveries_topic=t", "--destinations=d"], "on FlinkRunner"),
        ([*FLINK, "--deliveries_topic=t", "--destinations=d", "--user_shards=0"], "a partition for each user"),
        ([*FLINK, "--deliveries_topic=t"], "of no use without --destinations"),
        ([*FLINK, "--deliveries_topic=event-audit", "--destinations=d"], "a topic of its own"),
        ([*FLINK, "--deliveries_topic=t", "--decisions_topic=t", "--destinations=d"], "a topic of its own"),
        (["--decision_sample=0.5"], "of no use without"),
        ([*FLINK, "--decisions_file=f"], "on DirectRunner"),
        ([*FLINK, "--actions_file=f"], "on DirectRunner"),
        ([*FLINK, "--dead_letters_file=f"], "for the bundled stream"),
        (["--user_api_token=env:T", "--user_api_url=http://users.internal"], "clear text"),
        (["--user_api_ca_file=/x.pem", "--user_api_url=http://users.internal"], "of no use without"),
        (["--destination_host=a.example.com"], "of no use without --destinations"),
        (["--allow_private_destinations"], "of no use without --destinations"),
        (["--webhook_ca_file=/x.pem"], "of no use without --destinations"),
        (["--kafka_property=group.id=g"], "use --group_id"),
        (["--kafka_sasl_mechanism=PLAIN"], "allowed: with --kafka_security=SASL_PLAINTEXT or SASL_SSL"),
        (
            ["--kafka_security=SASL_SSL", "--kafka_sasl_mechanism=PLAIN", "--kafka_user=a"],
            "--kafka_password is missing",
        ),
        (["--kafka_key=env:K", "--kafka_security=SSL"], "belong together"),
        (["--parallelism=64"], "up to --user_shards, 16"),
    ],
)
def test_what_belongs_together_is_refused_apart(given: list[str], missing: str) -> None:
    """Each row of "What belongs together" in docs/configuration.md."""
    with pytest.raises(OptionError, match=missing):
        parse(given)


def test_the_picture_is_one_that_browsers_show_and_needs_nothing_else() -> None:
    picture = DOCS / "concepts.svg"
    root = ElementTree.fromstring(picture.read_text("utf-8"))  # noqa: S314 - our own

    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {"title", "desc"} <= {element.tag.rpartition("}")[2] for element in root}
    assert "href" not in picture.read_text("utf-8")
    for text in ("events", "control, rules", "dead letters", "checkpoint, on S3, once a minute", "state of the shard"):
        assert text in {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
