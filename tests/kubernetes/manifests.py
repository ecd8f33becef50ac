"""Renders an overlay, and says what is wrong with what comes out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

from infra.packages.__main__ import ROOT
from runners.flink import configuration

OVERLAYS: Final = ("small", "medium", "large")
FOLDER: Final = ROOT / "infra" / "kubernetes" / "overlays"
KUBERNETES: Final = "1.33"
ROLES: Final = ("launch", "page")
Document = dict[str, Any]


def _object(required: Sequence[str] = (), **properties: Any) -> Mapping[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


_TEXT: Final = {"type": "string"}
# What these manifests use of the operator's FlinkDeployment (v1beta1); its CRD takes more, also what the image has not
# got. Pod templates are checked as Kubernetes' own.
_RESOURCE: Final = _object(["memory", "cpu"], memory={"type": "string", "pattern": r"^\d+m$"}, cpu={"type": "number"})
_FLINK_DEPLOYMENT: Final = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "flink.apache.org/v1beta1"},
    kind={"const": "FlinkDeployment"},
    metadata=_object(["name", "namespace"], name=_TEXT, namespace=_TEXT),
    spec=_object(
        ["image", "flinkVersion", "mode", "serviceAccount", "flinkConfiguration", "jobManager", "taskManager"],
        image=_TEXT,
        flinkVersion={"const": "v1_19"},
        mode={"enum": ["native", "standalone"]},
        serviceAccount=_TEXT,
        flinkConfiguration={"type": "object", "additionalProperties": _TEXT},
        podTemplate={"type": "object"},
        jobManager=_object(["replicas", "resource"], replicas={"type": "integer", "minimum": 1}, resource=_RESOURCE),
        taskManager=_object(
            ["replicas", "resource"],
            replicas={"type": "integer", "minimum": 1},
            resource=_RESOURCE,
            podTemplate={"type": "object"},
        ),
    ),
)
_POD_MONITOR: Final = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PodMonitor"},
    metadata=_object(["name", "namespace"], name=_TEXT, namespace=_TEXT),
    spec=_object(
        ["selector", "podMetricsEndpoints"],
        selector=_object(["matchLabels"], matchLabels={"type": "object", "additionalProperties": _TEXT}),
        podMetricsEndpoints={"type": "array", "items": _object(["port"], port=_TEXT, interval=_TEXT)},
    ),
)
_OWN_SCHEMAS: Final = {"FlinkDeployment": _FLINK_DEPLOYMENT, "PodMonitor": _POD_MONITOR}


def render(overlay: str) -> list[Document]:
    """The documents of an overlay, as ``kubectl kustomize`` makes them."""
    command = ["kubectl", "kustomize", str(FOLDER / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"{' '.join(command)}: {done.stderr}")
    return list(yaml.safe_load_all(done.stdout))


def the(documents: Sequence[Document], kind: str, name: str | None = None) -> Document:
    """The document of a kind, and of a name if there are several."""
    (found,) = (d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"]))
    return found


def pods(documents: Sequence[Document]) -> Iterator[tuple[str, Document]]:
    """Every pod's name and template; of Flink's as the operator labels and joins them."""
    for document in documents:
        if document["kind"] == "FlinkDeployment":
            spec = document["spec"]
            for component, part in (("jobmanager", spec["jobManager"]), ("taskmanager", spec["taskManager"])):
                template = deepcopy(_joined(spec.get("podTemplate", {}), part.get("podTemplate", {})))
                labels = {"app": document["metadata"]["name"], "component": component}
                labels["type"] = "flink-standalone-kubernetes"
                metadata = template.setdefault("metadata", {})
                metadata["labels"] = {**metadata.get("labels", {}), **labels}
                yield component, template
        elif document["kind"] in ("Deployment", "Job"):
            yield document["metadata"]["name"], document["spec"]["template"]


def _joined(base: Any, more: Any) -> Any:
    """Two pod templates as the operator joins them: objects by key, lists of named things by name."""
    if isinstance(base, dict) and isinstance(more, dict):
        return {key: _joined(base.get(key), more.get(key)) for key in {**base, **more}}
    if isinstance(base, list) and isinstance(more, list) and all("name" in item for item in [*base, *more]):
        named = {item["name"]: item for item in base}
        return list({**named, **{item["name"]: _joined(named.get(item["name"]), item) for item in more}}.values())
    return base if more is None else more


def problems(documents: Sequence[Document]) -> list[str]:
    """What is wrong with rendered documents: schemas, references, what pods may do, settings."""
    return [
        *_wrong_fields(documents),
        *_dangling(documents),
        *(problem for name, pod in pods(documents) for problem in _unsafe(name, pod)),
        *_settings(the(documents, "FlinkDeployment")["spec"]["flinkConfiguration"]),
    ]


def _wrong_fields(documents: Sequence[Document]) -> Iterator[str]:
    checked = list(documents)
    for name, template in pods(documents):  # also Flink's, as Kubernetes would see them
        checked.append(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template},
            }
        )
    for document in checked:
        where = f"{document['kind']} {document['metadata']['name']}"
        try:
            if document["kind"] in _OWN_SCHEMAS:
                jsonschema.validate(document, _OWN_SCHEMAS[document["kind"]])
            else:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{where}: {error.message}"


def _dangling(documents: Sequence[Document]) -> Iterator[str]:
    names = {
        kind: {d["metadata"]["name"] for d in documents if d["kind"] == kind}
        for kind in ("ConfigMap", "ServiceAccount")
    }
    templates = dict(pods(documents))
    labels = [template["metadata"]["labels"] for template in templates.values()]
    for name, template in templates.items():
        volumes = template["spec"].get("volumes", ())
        for volume in volumes:
            if "configMap" in volume and volume["configMap"]["name"] not in names["ConfigMap"]:
                yield f"{name}: there is no ConfigMap {volume['configMap']['name']}"
        for container in template["spec"]["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            yield from (f"{name}: volume {volume} is not there" for volume in mounted - {v["name"] for v in volumes})
    for document in documents:
        spec, where = document.get("spec", {}), f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "FlinkDeployment" and spec["serviceAccount"] not in names["ServiceAccount"]:
            yield f"{where}: there is no ServiceAccount {spec['serviceAccount']}"
        selector = spec.get("podSelector", spec.get("selector")) or {}
        wanted = selector.get("matchLabels", selector if document["kind"] == "Service" else {})
        if wanted and not any(wanted.items() <= given.items() for given in labels):
            yield f"{where}: no pod has the labels {wanted}"
    images = {d["spec"]["image"] for d in documents if d["kind"] == "FlinkDeployment"}
    images |= {c["image"] for _, t in pods(documents) for c in t["spec"]["containers"] if "image" in c}
    if len(images) != 1:
        yield f"the images differ: {', '.join(sorted(images))}"


def _unsafe(name: str, template: Document) -> Iterator[str]:
    pod = template["spec"]
    if not (pod.get("securityContext", {}).get("runAsNonRoot") and pod["securityContext"].get("runAsUser") == 9999):
        yield f"{name}: does not run as the image's user"
    for container in pod["containers"]:
        security = container.get("securityContext", {})
        if not security.get("readOnlyRootFilesystem"):
            yield f"{name}: its root file system can be written"
        if security.get("allowPrivilegeEscalation") is not False or security.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: it may gain privileges"
        for variable in container.get("env", ()):
            if re.search(r"TOKEN|SECRET|PASSWORD|KEY$", variable["name"]) and "value" in variable:
                yield f"{name}: {variable['name']} is written here; allowed: valueFrom.secretKeyRef"
        if container["name"] in ROLES and container.get("args", [""])[0] != container["name"]:
            yield f"{name}: its argument is {container.get('args')}, the image's role is {container['name']}"


def _settings(given: Mapping[str, str]) -> Iterator[str]:
    for key, value in configuration.BASE.items():
        if given.get(key) != value:
            yield f"flinkConfiguration: {key} is {given.get(key)!r}, every cluster has {value!r}"
    for key in ("state.checkpoints.dir", "state.savepoints.dir", "high-availability.storageDir"):
        if not str(given.get(key)).startswith("s3://") or "BUCKET" in given[key]:
            yield f"flinkConfiguration: {key} is {given.get(key)!r}, allowed: a folder in S3"
    if given.get("high-availability.type") != "kubernetes":
        yield "flinkConfiguration: a JobManager that ends loses its jobs without high-availability.type: kubernetes"
