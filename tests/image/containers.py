"""Containers of the image of `make image`, started by podman without a daemon."""

from __future__ import annotations

import json
import resource
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from infra.image.__main__ import NAME, STORE
from infra.packages.__main__ import project_version
from runners.flink.errors import LocalStackError

IMAGE = f"{NAME}:{project_version()}"
PODMAN = ("podman", *STORE, "--runtime", "runc", "--cgroup-manager", "cgroupfs")


def podman(*arguments: str, deadline_s: float = 1200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PODMAN, *arguments], capture_output=True, text=True, check=False, timeout=deadline_s, stdin=subprocess.DEVNULL
    )


def inspected(*arguments: str) -> dict:
    (found,) = json.loads(podman(*arguments).stdout)
    return found


@dataclass
class Containers:
    """Containers with a read-only root and no capabilities; ``containers`` removes them at the end."""

    names: list[str] = field(default_factory=list)

    def start(
        self, *command: str, options: Sequence[str] = (), variables: Mapping[str, str] | None = None, wait: bool = False
    ) -> str:
        """Start a container; its name, or what it printed if it is waited for.

        Raises:
            AssertionError: it cannot be started, or ends with an error.
        """
        name = f"event-trigger-test-{command[0]}-{uuid.uuid4().hex[:8]}"
        self.names.append(name)
        fixed = ["--name", name, "--read-only", "--cap-drop", "ALL", "--pids-limit", "-1"]
        fixed += ["--security-opt", "no-new-privileges", "--no-healthcheck"]  # whose timers need systemd
        fixed += [word for limit in limits() for word in ("--ulimit", limit)]
        fixed += [word for key, value in (variables or {}).items() for word in ("--env", f"{key}={value}")]
        done = podman("run", *([] if wait else ["--detach"]), *fixed, *options, IMAGE, *command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout if wait else name

    def logs(self, lines: int = 30) -> str:
        return "\n".join(f"== {name}\n{podman('logs', '--tail', str(lines), name).stdout}" for name in self.names)


@contextmanager
def containers() -> Iterator[Containers]:
    """Containers that are removed at the end; an error that ends the test gets their logs."""
    started = Containers()
    try:
        yield started
    except (AssertionError, LocalStackError) as error:
        error.add_note(started.logs())
        raise
    finally:
        for name in started.names:
            podman("rm", "--force", "--time", "0", "--volumes", name)


def limits() -> list[str]:
    """Limits of a container, which cannot have more than this process may have."""
    wanted = (("nofile", resource.RLIMIT_NOFILE, 65_536), ("nproc", resource.RLIMIT_NPROC, 8_192))
    own = {name: resource.getrlimit(kind)[1] for name, kind, _ in wanted}
    allowed = {name: most if own[name] == resource.RLIM_INFINITY else min(own[name], most) for name, _, most in wanted}
    return [f"{name}={number}:{number}" for name, number in allowed.items()]
