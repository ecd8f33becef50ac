"""The boot script's functions, with stand-ins for AWS and for what needs root."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.infra.terraform import SOURCE

SCRIPT = SOURCE / "modules" / "bootstrap" / "files" / "boot.sh"
# Parameters are files. The first put of a name in `taken` finds that another node was faster, with the value "theirs".
AWS = """\
echo "$2 $4" >>calls
file=parameters/$(basename "$4")
case $2 in
  get-parameter)
    [ -e "$file" ] || { echo 'An error occurred (ParameterNotFound)' >&2; exit 254; }
    cat "$file" ;;
  put-parameter)
    if [ "$(basename "$4")" = "$TAKEN" ] && [ ! -e "$file" ]; then printf theirs >"$file"; fi
    [ ! -e "$file" ] || { echo 'An error occurred (ParameterAlreadyExists)' >&2; exit 254; }
    value=$(echo "$@" | sed 's/.*--value file:..\\([^ ]*\\).*/\\1/')
    cat "$value" >"$file" ;;
esac
"""
INSTALL = 'for last; do :; done; echo "$*" >>installed; cat >"written-$(basename "$last")"\n'


def logins(tmp_path: Path, role: str, taken: str = "", **parameters: str) -> str:
    """What the function for ZooKeeper's logins writes to jaas.conf."""
    (tmp_path / "parameters").mkdir()
    for name, value in parameters.items():
        (tmp_path / "parameters" / name).write_text(value)
    for name, text in {"aws": AWS, "install": INSTALL, "sleep": "exit 1\n"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "node.env").write_text(
        f"ROLE={role}\nAWS_REGION=x\nZOOKEEPER_PARAMETERS=/a/zookeeper\nKMS_KEY_ARN=k\nTLS_PARAMETER=/a/tls\n"
    )
    script = SCRIPT.read_text().replace("/etc/event-trigger", str(tmp_path)).removesuffix('main "$@"\n')
    assert "main() {" in script
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TAKEN": taken}
    done = subprocess.run(
        ["bash", "-c", f"{script}\nzookeeper_logins"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (tmp_path / "written-jaas.conf").read_text()


def test_zookeepers_first_node_makes_the_passwords_and_the_others_take_them(tmp_path: Path) -> None:
    written = logins(tmp_path, "zookeeper", taken="jobmanager")
    own = (tmp_path / "parameters" / "taskmanager").read_text()
    assert re.fullmatch(r"[A-Za-z0-9]{28,32}", own)
    assert written == (
        "Server {\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n"
        f'  user_jobmanager="theirs"\n  user_taskmanager="{own}";\n}};\n'
    )
    assert (tmp_path / "installed").read_text() == "-g flink -m 0640 /dev/stdin /etc/zookeeper/jaas.conf\n"


@pytest.mark.parametrize("role", ["jobmanager", "taskmanager"])
def test_a_node_of_flink_reads_its_own_password_and_makes_none(tmp_path: Path, role: str) -> None:
    written = logins(tmp_path, role, jobmanager="leads", taskmanager="looks")
    module = "org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.auth.DigestLoginModule"
    password = {"jobmanager": "leads", "taskmanager": "looks"}[role]
    assert written == f'Client {{\n  {module} required\n  username="{role}"\n  password="{password}";\n}};\n'
    assert (tmp_path / "calls").read_text() == f"get-parameter /a/zookeeper/{role}\n"
    assert (tmp_path / "installed").read_text() == "-g flink -m 0640 /dev/stdin /etc/flink/jaas.conf\n"
