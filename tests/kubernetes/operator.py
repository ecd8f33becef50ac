"""What the Flink operator makes of a FlinkDeployment in standalone mode: read in its sources (1.16-SNAPSHOT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.kubernetes.manifests import Document, pods, the

CONF_DIR: Final = "/opt/flink/conf"  # where it mounts its files, over the image's
_ROLES: Final = {"jobmanager": "jobManager", "taskmanager": "taskManager"}
_LOGGING: Final = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = ConsoleAppender
rootLogger.appenderRef.rolling.ref = RollingFileAppender
appender.console.name = ConsoleAppender
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %-60c %x - %m%n
appender.rolling.name = RollingFileAppender
appender.rolling.type = RollingFile
appender.rolling.append = false
appender.rolling.fileName = ${sys:log.file}
appender.rolling.filePattern = ${sys:log.file}.%i
appender.rolling.layout.type = PatternLayout
appender.rolling.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %-60c %x - %m%n
appender.rolling.policies.type = Policies
appender.rolling.policies.size.type = SizeBasedTriggeringPolicy
appender.rolling.policies.size.size = 100MB
appender.rolling.strategy.type = DefaultRolloverStrategy
appender.rolling.strategy.max = 10
"""


def settings(documents: Sequence[Document]) -> dict[str, str]:
    """Flink's settings: those of the deployment, and what the operator adds and takes away."""
    deployment = the(documents, "FlinkDeployment")
    spec, name, namespace = deployment["spec"], deployment["metadata"]["name"], deployment["metadata"]["namespace"]
    taken = ("rest.bind-address", "jobmanager.bind-host", "taskmanager.bind-host", "taskmanager.host")
    return {
        **{key: value for key, value in spec["flinkConfiguration"].items() if key not in taken},
        **{f"{role}.memory.process.size": spec[part]["resource"]["memory"] for role, part in _ROLES.items()},
        "kubernetes.cluster-id": name,
        "kubernetes.namespace": namespace,
        "kubernetes.service-account": spec["serviceAccount"],
        "kubernetes.jobmanager.replicas": str(spec["jobManager"]["replicas"]),
        "high-availability.cluster-id": name,
        "high-availability.jobmanager.port": spec["flinkConfiguration"]["jobmanager.rpc.port"],
        "jobmanager.rpc.address": f"{name}.{namespace}",
        "rest.address": f"{name}-rest.{namespace}",
        "rest.bind-port": "8081",
        "web.cancel.enable": "false",
    }


def conf_files(given: dict[str, str]) -> dict[str, str]:
    """The files in CONF_DIR. For Flink 1.19 it writes the older form, without quotes."""
    lines = "".join(f"{key}: {value}\n" for key, value in given.items())
    return {"flink-conf.yaml": lines, "log4j-console.properties": _LOGGING}


def containers(documents: Sequence[Document]) -> dict[str, tuple[Document, Document]]:
    """Every pod's specification and its container, Flink's completed as the operator does."""
    found = {name: (template["spec"], dict(template["spec"]["containers"][0])) for name, template in pods(documents)}
    spec = the(documents, "FlinkDeployment")["spec"]
    for role, part in _ROLES.items():
        container = found[role][1]
        container |= {"command": ["/docker-entrypoint.sh"], "args": [role]}  # not the image's entry point
        container["resources"] = {"limits": {"memory": spec[part]["resource"]["memory"].replace("m", "Mi")}}
    if "high-availability.type" in spec["flinkConfiguration"]:
        found["jobmanager"][1]["args"] += ["-D", "jobmanager.rpc.address=$(_POD_IP_ADDRESS)"]
    return found
