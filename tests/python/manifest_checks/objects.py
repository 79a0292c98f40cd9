"""What the overlays render to: objects, and the workloads among them."""

import json
import re
import subprocess
from dataclasses import dataclass

import kubernetes_validate
import yaml

from manifest_checks.programs import SHARDS

FOREIGN_KINDS = {"PodMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute"}


@dataclass
class Workload:
    """A Deployment or StatefulSet with one container of ours."""

    overlay: str
    kind: str
    name: str
    spec: dict
    environment: dict

    @property
    def pod(self):
        return self.spec["template"]["spec"]

    @property
    def labels(self):
        return self.spec["template"]["metadata"]["labels"]

    @property
    def service(self):
        return self.labels.get("app.kubernetes.io/component")

    @property
    def container(self):
        return self.pod["containers"][0]

    @property
    def models(self):
        """What it computes with, or gives to others."""
        if self.service == "share":
            return [argument for argument in self.container["args"][1:] if not argument.startswith("--")]
        return [self.environment[name] for name in ("LLAMA_SWARM_MODEL",) if name in self.environment]

    def __str__(self):
        return f"{self.overlay}: {self.kind} {self.name}"


class Overlay:
    """The objects of one rendered overlay."""

    def __init__(self, name, objects, replicas=1, shards=SHARDS):
        self.name, self.objects = name, objects
        # How many shards there are meant to be, and workers of each.
        self.shards, self.replicas = shards, replicas
        self.workloads = [self._workload(o) for o in objects if o["kind"] in ("Deployment", "StatefulSet")]

    def of(self, kind):
        return [o for o in self.objects if o["kind"] == kind]

    def named(self, kind, name):
        return next((o for o in self.of(kind) if o["metadata"]["name"] == name), None)

    def _workload(self, o):
        container, environment = o["spec"]["template"]["spec"]["containers"][0], {}
        for source in container.get("envFrom", []):
            config_map = self.named("ConfigMap", source.get("configMapRef", {}).get("name"))
            environment.update(config_map["data"] if config_map else {})
        for variable in container.get("env", []):
            environment[variable["name"]] = expanded(self._value(variable, o), environment)
        return Workload(self.name, o["kind"], o["metadata"]["name"], o["spec"], environment)

    @staticmethod
    def _value(variable, o):
        """What the pod gets; empty where only the cluster knows it."""
        path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        if label := re.fullmatch(r"metadata\.labels\['(.+)'\]", path):
            return o["spec"]["template"]["metadata"]["labels"].get(label[1], "")
        return o["metadata"]["namespace"] if path == "metadata.namespace" else variable.get("value", "")


def expanded(text, environment):
    """As the kubelet does it: a variable is seen by those after it, and stays as it is written where it is unknown."""
    return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), text)


def render(kubectl, folder):
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{folder}: {done.stderr.strip()}")
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def distinct(overlays):
    """Overlay and object; one of those that are the same, or differ in the number of their shard alone."""
    seen = set()
    for overlay, o in ((overlay, o) for overlay in overlays for o in overlay.objects):
        written = re.sub(r"(shard-worker-|llama-swarm/shard\D+)\d+", r"\1", json.dumps(o))
        if written not in seen:
            yield overlay, o
        seen.add(written)


def schema_faults(overlays, version):
    # To look at each object takes long.
    for overlay, o in distinct(overlays):
        name = f"{overlay.name}: {o['kind']} {o['metadata']['name']}"
        try:
            kubernetes_validate.validate(o, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            if o["kind"] not in FOREIGN_KINDS:
                yield f"{name}: Kubernetes {version} has no {o['apiVersion']}"
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"


def newest_versions(count):
    versions = kubernetes_validate.utils.all_versions()
    newest = sorted({tuple(map(int, version.split(".")[:2])) for version in versions})[-count:]
    return [f"{major}.{minor}" for major, minor in newest]


def selects(selector, labels):
    """Whether a LabelSelector takes in a pod of these labels."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or []:
        value, among = labels.get(rule["key"]), rule.get("values", [])
        holds = {
            "In": value in among,
            "NotIn": value not in among,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[rule["operator"]]:
            return False
    return True
