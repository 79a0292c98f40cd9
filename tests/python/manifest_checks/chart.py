"""The Helm chart, rendered by Helm's own library: the same swarm as k8s/base, and what its values promise."""

import copy
import json
import re

import yaml

from manifest_checks.objects import Overlay, expanded, selects

try:
    import helm_python
except ImportError:
    # There is none for this machine.
    helm_python = None

# What k8s/base has, as the chart says it.
AS_BASE = {"namePrefix": "", "cluster": "llama-cluster"}
FULL = {
    "shards": 4,
    "replicas": 2,
    "storageClass": "fast",
    "image": {"registry": "registry.example.com/", "pullSecrets": [{"name": "registry"}]},
    "worker": {"placement": "required", "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "mesh": "istio",
    "tracing": {"namespace": "observability"},
    "settings": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel-collector.observability:4317"},
    "gateway": {"hosts": ["llama.example.com"], "autoscaling": {"enabled": False}},
    "routes": {"enabled": True, "parents": [{"name": "public", "namespace": "gateways"}]},
    "monitoring": {"enabled": True},
}
# Labels that choose pods of one release, and what only tells of Helm.
OF_HELM = {"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart", "checksum/settings"}
USER = ("runAsUser", "runAsGroup", "fsGroup")


class Chart:
    def __init__(self, folder):
        self.folder = folder

    def objects(self, values, release="demo", namespace="prod"):
        with helm_python.Chart.load(self.folder) as chart:
            chart.validate_schema(values)
            files = chart.render(values, name=release, namespace=namespace)
        return [o for name, text in files.items() if name.endswith(".yaml") for o in yaml.safe_load_all(text) if o]

    def overlays(self):
        yield Overlay("chart", self.objects({}))
        yield Overlay("chart-full", self.objects(FULL), replicas=2, shards=4)
        yield Overlay("chart-open", self.objects({"gateway": {"open": True}, "mesh": "linkerd"}))

    def faults(self, base):
        report = helm_python.lint(self.folder, strict=True)
        yield from report["errors"]
        yield from differences(base.objects, self.objects(AS_BASE, "llama-swarm", "llama-swarm"))
        with_namespace = self.objects({"namespace": {"create": True}})
        if [o["metadata"]["name"] for o in with_namespace if o["kind"] == "Namespace"] != ["prod"]:
            yield "namespace.create makes no Namespace"
        yield from openshift_faults(self.objects({}), self.objects({"openshift": True}))
        yield from neighbour_faults(self.objects(FULL, "blue"), self.objects(FULL, "green"))
        yield from wish_faults(Overlay("chart-full", self.objects(FULL)))
        for wrong in ({"shard": 4}, {"shards": 0}, {"mesh": "other"}, {"worker": {"placement": "hard"}}):
            try:
                self.objects(wrong)
                yield f"values {wrong} are taken"
            except helm_python.HelmError:
                pass


def wish_faults(overlay):
    """That values arrive in every pod they are for."""
    for workload in overlay.workloads:
        if workload.pod.get("imagePullSecrets") != [{"name": "registry"}]:
            yield f"{workload}: pulls without the Secret"
        if not workload.container["image"].startswith("registry.example.com/llama-swarm/"):
            yield f"{workload}: image {workload.container['image']}"
        for claim in workload.spec.get("volumeClaimTemplates", []):
            if claim["spec"].get("storageClassName") != "fast":
                yield f"{workload}: claim {claim['metadata']['name']} is of no storage class"
        if ("sidecar.istio.io/inject" in workload.labels) != (workload.service == "gateway"):
            yield f"{workload}: in the mesh or not, wrongly"
    gateway = overlay.named("Deployment", "demo-gateway")
    annotations = gateway["spec"]["template"]["metadata"]["annotations"]
    for way in ("Inbound", "Outbound"):
        if "4001" not in annotations.get(f"traffic.sidecar.istio.io/exclude{way}Ports", ""):
            yield f"what nodes say to each other goes through the gateways' sidecars ({way.lower()})"
    if not overlay.named("NetworkPolicy", "demo-mesh"):
        yield "sidecars do not reach their mesh"
    if gateway["spec"].get("replicas") != 2 or overlay.of("HorizontalPodAutoscaler"):
        yield "without an autoscaler the gateways are not as many as `min`"


def canonical(value):
    """Without what only Helm adds, and lists of objects in one order."""
    if isinstance(value, dict):
        cleaned = {k: canonical(v) for k, v in value.items() if k not in OF_HELM}
        return {k: v for k, v in cleaned.items() if v not in ({}, None)}
    if isinstance(value, list):
        cleaned = [canonical(v) for v in value]
        is_set = all(isinstance(v, dict) for v in cleaned)
        return sorted(cleaned, key=lambda v: json.dumps(v, sort_keys=True)) if is_set else cleaned
    return value


def told(o):
    """An object as kustomize and Helm both say it: variables as the pod gets them, names without a hash."""
    o = copy.deepcopy(o)
    template = o["spec"].get("template") if o["kind"] in ("Deployment", "StatefulSet") else None
    if o["kind"] == "ConfigMap":
        o["metadata"]["name"] = without_hash(o["metadata"]["name"])
    if o["metadata"]["name"] == "default-deny":
        # The chart's is of its own pods: there may be others in the namespace.
        o["spec"]["podSelector"] = {}
    for container in template["spec"]["containers"] if template else []:
        for source in container["envFrom"]:
            source["configMapRef"]["name"] = without_hash(source["configMapRef"]["name"])
        known, parts, variables = {}, set(), {}
        for variable in container["env"]:
            text = variable.get("value", "")
            parts |= set(re.findall(r"\$\((\w+)\)", text))
            is_namespace = variable.get("valueFrom") == {"fieldRef": {"fieldPath": "metadata.namespace"}}
            known[variable["name"]] = o["metadata"]["namespace"] if is_namespace else expanded(text, known)
            variables[variable["name"]] = variable.get("valueFrom", known[variable["name"]])
        container["env"] = {name: value for name, value in variables.items() if name not in parts}
    for claim in o.get("spec", {}).get("volumeClaimTemplates", []):
        claim["metadata"] = {"name": claim["metadata"]["name"]}
    if template is None:
        # Kustomize and the chart label what has no pods as they like.
        o["metadata"]["labels"] = {}
    return canonical(o)


def without_hash(name):
    return re.sub(r"-[a-z0-9]{10}$", "", name)


def by_name(objects):
    return {(o["kind"], o["metadata"]["name"]): o for o in map(told, objects)}


def differences(base, chart):
    base, chart = by_name(base), by_name(chart)
    for kind, name in sorted(base.keys() ^ chart.keys()):
        yield f"{kind} {name} is only in {'k8s/base' if (kind, name) in base else 'the chart'}"
    for key in sorted(base.keys() & chart.keys()):
        for place, one, other in unequal(base[key], chart[key], ""):
            yield f"{' '.join(key)}{place} is {one!r} in k8s/base, {other!r} in the chart"


def unequal(one, other, place):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from unequal(one.get(key), other.get(key), f"{place}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from unequal(*pair, f"{place}[{number}]")
    elif one != other:
        yield place, one, other


def openshift_faults(objects, on_openshift):
    """Nobody says as whom to run; nothing else is different but where names are asked for."""

    def users(value):
        if isinstance(value, dict):
            yield from (key for key in value if key in USER)
            value = list(value.values())
        for item in value if isinstance(value, list) else []:
            yield from users(item)

    if found := list(users(on_openshift)):
        yield f"on OpenShift pods say {sorted(set(found))}"
    if not list(users(objects)):
        yield "elsewhere pods do not say as whom they run"
    before, after = by_name(objects), by_name(on_openshift)
    for key in before:
        for place, one, _ in unequal(before[key], after.get(key), ""):
            if place.rpartition(".")[2] not in USER and key != ("NetworkPolicy", "demo-names"):
                yield f"on OpenShift {' '.join(key)}{place} is not {one!r}"


def neighbour_faults(blue, green):
    """Two releases in one namespace: no name twice, and nothing chooses the other's pods."""
    names = [{(o["kind"], o["metadata"]["name"]) for o in objects} for objects in (blue, green)]
    yield from (f"two releases both have {kind} {name}" for kind, name in sorted(names[0] & names[1]))
    pods = [w.labels for w in Overlay("green", green).workloads]
    for o in blue:
        spec = o.get("spec", {})
        for selector in (spec.get("selector"), spec.get("podSelector")):
            if selector is None:
                continue
            wide = selector if {"matchLabels", "matchExpressions"} & selector.keys() else {"matchLabels": selector}
            if any(selects(wide, labels) for labels in pods):
                yield f"{o['kind']} {o['metadata']['name']} chooses pods of another release"
