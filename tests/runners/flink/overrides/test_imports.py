from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_cloud_clients_are_not_imported_and_stay_importable() -> None:
    code = (
        "import sys\n"
        "from runners.flink.overrides import without_cloud_clients\n"
        "with without_cloud_clients():\n"
        "    import apache_beam.runners.worker.sdk_worker_main\n"
        "clients = ('google.cloud.', 'google.auth', 'boto3', 'pymongo')\n"
        "assert not [name for name in sys.modules if name.startswith(clients)]\n"
        "import boto3, google.cloud.storage\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
