"""docs/settings.md on a running job: Flink reports the settings that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from runners.flink import configuration
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from tests.integration.jobs import Topics, running

pytestmark = pytest.mark.stack


def test_a_job_and_its_cluster_have_the_settings_that_are_shipped(
    kafka: LocalKafka, flink: LocalFlink, tmp_path: Path
) -> None:
    topics, rules = Topics(kafka), tmp_path / "rules.yaml"
    rules.write_text("name: every_event\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\n")
    with running(flink, topics, rules) as job_id:
        job = flink.rest.checkpoint_config(job_id)
        assert (job["mode"], job["interval"], job["timeout"]) == ("exactly_once", 60_000, 600_000)
        assert (job["min_pause"], job["max_concurrent"]) == (30_000, 1)
        assert (job["unaligned_checkpoints"], job["aligned_checkpoint_timeout"]) == (True, 10_000)
        assert job["externalization"] == {"enabled": True, "delete_on_cancellation": False}
        assert job["tolerable_failed_checkpoints"] == 30
        assert job["state_backend"] == "EmbeddedRocksDBStateBackend"
        config = requests.get(f"{flink.rest_url}/jobs/{job_id}/config", timeout=10).json()
        # The one setting that a job leaves to the cluster, whose own is looked at below.
        assert config["execution-config"]["restart-strategy"] == "Cluster level default restart strategy"
    cluster = {
        entry["key"]: entry["value"] for entry in requests.get(f"{flink.rest_url}/jobmanager/config", timeout=10).json()
    }
    # The one size that a JobManager is started with as it was computed.
    metaspace = {"jobmanager.memory.jvm-metaspace.size": f"{256 << 20}b"}
    shipped = {**configuration.BASE, **configuration.LOCAL, **metaspace}
    assert {key: cluster.get(key) for key in shipped} == shipped
