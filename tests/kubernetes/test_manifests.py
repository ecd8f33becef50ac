"""Each overlay is valid and fits together; mistakes are found; Flink and the pipeline take their parts."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from contextvars import copy_context
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.cli.main import main
from runners.flink import artifacts
from tests.kubernetes import operator
from tests.kubernetes.manifests import OVERLAYS, Document, problems, render, the

pytestmark = pytest.mark.slow


@cache
def rendered(overlay: str) -> tuple[Document, ...]:
    return tuple(render(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_in_order(overlay: str) -> None:
    assert problems(rendered(overlay)) == []


def put(kind: str, path: str, value: Any, name: str | None = None) -> Callable[[list[Document]], None]:
    """A change: ``value`` at a path of keys and numbers; None takes the key away."""

    def change(documents: list[Document]) -> None:
        place: Any = the(documents, kind, name)
        *way, last = (int(key) if key.isdigit() else key for key in path.split("/"))
        for key in way:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


CONTAINER = "spec/podTemplate/spec/containers/0"
OF_TASK_MANAGERS = "spec/taskManager/podTemplate/spec/containers/0"
SETTINGS = "spec/flinkConfiguration"
TEMPLATE = "spec/template/spec"
SELECTED = "spec/podSelector/matchLabels"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("FlinkDeployment", "spec/flinkVersion", "v1_20"), "'v1_19' was expected"),
        (put("FlinkDeployment", "spec/flinkVersoin", "v1_19"), "'flinkVersoin' was unexpected"),
        (put("FlinkDeployment", "spec/mode", "session"), "'session' is not one of"),
        (put("FlinkDeployment", "spec/taskManager/replica", 3), "'replica' was unexpected"),
        (put("FlinkDeployment", "spec/taskManager/replicas", 0), "0 is less than the minimum"),
        (put("FlinkDeployment", "spec/taskManager/resource/memory", "10 GB"), "'10 GB' does not match"),
        (put("FlinkDeployment", "spec/podTemplate/spec/container", []), "'container' was unexpected"),
        (put("FlinkDeployment", f"{CONTAINER}/ports/0/containerPort", "9249"), "is not of type"),
        (put("FlinkDeployment", f"{CONTAINER}/volumeMounts/0/name", "dta"), "volume dta is not there"),
        (put("FlinkDeployment", f"{CONTAINER}/securityContext/readOnlyRootFilesystem", False), "can be written"),
        (put("FlinkDeployment", f"{CONTAINER}/securityContext/capabilities", None), "may gain privileges"),
        (put("FlinkDeployment", "spec/serviceAccount", "flink"), "no ServiceAccount flink"),
        (put("FlinkDeployment", "spec/image", "event-trigger:other"), "the images differ"),
        (put("FlinkDeployment", f"{SETTINGS}/state.backend.type", "hashmap"), "every cluster has 'rocksdb'"),
        (put("FlinkDeployment", f"{SETTINGS}/state.checkpoints.dir", "file:///x"), "a folder in S3"),
        (put("FlinkDeployment", f"{SETTINGS}/high-availability.type", None), "loses its jobs"),
        (put("FlinkDeployment", f"{OF_TASK_MANAGERS}/env/0", {"name": "CRM_SIGNING_KEY", "value": "x"}),
         "CRM_SIGNING_KEY is written here"),
        (put("Deployment", "spec/template/spec/containers/0/arg", []), "'arg' was unexpected"),
        (put("Deployment", "spec/template/spec/containers/0/args", ["ui"]), "the image's role is page"),
        (put("Deployment", "spec/template/spec/securityContext/runAsUser", 0), "does not run as the image's user"),
        (put("Deployment", "spec/template/metadata/labels/app", "pages"), "no pod has the labels {'app': 'page'}"),
        (put("Deployment", f"{TEMPLATE}/volumes/0/configMap/name", "event-trigger"), "no ConfigMap event-trigger"),
        (put("Job", "spec/template/spec/restartPolice", "Never"), "'restartPolice' was unexpected"),
        (put("Job", "spec/backoffLimit", "20"), "is not of type"),
        (put("Service", "spec/ports/0/port", "http"), "is not of type"),
        (put("NetworkPolicy", f"{SELECTED}/component", "jobmanger", "jobmanager"), "no pod has the labels"),
        (put("NetworkPolicy", "spec/ingres", [], "metrics"), "'ingres' was unexpected"),
        (put("PodMonitor", "spec/selector/matchLabels/app", "flink"), "no pod has the labels {'app': 'flink'}"),
        (put("PodMonitor", "spec/podMetricsEndpoint", []), "'podMetricsEndpoint' was unexpected"),
        (put("Role", "rules/0/verb", ["get"]), "'verb' was unexpected"),
    ],
)  # fmt: skip
def test_mistakes_are_found(change: Callable[[list[Document]], None], problem: str) -> None:
    documents = deepcopy(list(rendered("small")))
    change(documents)
    assert problem in "\n".join(problems(documents))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pipeline_takes_the_options_and_rules(
    overlay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = (document for document in rendered(overlay) if document["kind"] == "ConfigMap")
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for command in (
        ["config", "check", f"--config={tmp_path / 'event-trigger.yaml'}"],
        ["rules", "check", "rules.yaml"],
    ):
        # In a context of its own: a command keeps where its options come from.
        assert copy_context().run(main, command) == 0, capsys.readouterr()
    options = yaml.safe_load(config["data"]["event-trigger.yaml"])
    flink = the(rendered(overlay), "FlinkDeployment")["spec"]
    slots = int(flink["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert options["parallelism"] == slots * flink["taskManager"]["replicas"]
    assert options["workers_per_task_manager"] == slots


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_flink_takes_the_memory_of_its_pods(overlay: str, tmp_path: Path) -> None:
    """As Flink's own tool computes it, from the file that the operator writes for 1.19."""
    for name, text in operator.conf_files(operator.settings(rendered(overlay))).items():
        (tmp_path / name).write_text(text)
    home = artifacts.flink_home()
    class_path = f"{home}/bin/bash-java-utils.jar:{next((home / 'lib').glob('flink-dist-*.jar'))}"
    for role in ("JM", "TM"):
        command = [artifacts.java(), "-cp", class_path, "org.apache.flink.runtime.util.bash.BashJavaUtils"]
        command += [f"GET_{role}_RESOURCE_PARAMS", "--configDir", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "-Xmx" in done.stdout


def closed(schema: Any) -> Any:
    """A schema that refuses fields it does not know, which Kubernetes would drop."""
    if isinstance(schema, dict):
        more = {} if schema.get("x-kubernetes-preserve-unknown-fields") else {"additionalProperties": False}
        own = more if "properties" in schema and "additionalProperties" not in schema else {}
        return {**own, **{key: closed(value) for key, value in schema.items()}}
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def crd() -> Any:
    """What the operator's CRD says of a FlinkDeployment's specification."""
    with zipfile.ZipFile(artifacts.operator_api_jar()) as jar:
        (found,) = yaml.safe_load_all(jar.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"))
    return closed(found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_operators_own_crd_takes_the_deployment(overlay: str, crd: Any) -> None:
    jsonschema.validate(the(rendered(overlay), "FlinkDeployment")["spec"], crd)


@pytest.mark.parametrize(
    "change",
    [
        put("FlinkDeployment", "spec/flinkVersoin", "v1_19"),
        put("FlinkDeployment", "spec/flinkVersion", "v1_91"),
        put("FlinkDeployment", "spec/mode", "session"),
        put("FlinkDeployment", "spec/taskManager/replica", 3),
        put("FlinkDeployment", "spec/jobManager/resource/cpu", "one"),
        put("FlinkDeployment", f"{CONTAINER}/volumeMount", []),
    ],
)
def test_the_operators_own_crd_refuses_mistakes(change: Callable[[list[Document]], None], crd: Any) -> None:
    documents = deepcopy(list(rendered("small")))
    change(documents)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(the(documents, "FlinkDeployment")["spec"], crd)
