"""Flags, ports and probes of pods, their endings, and which shard and which peer they are."""

import re
from pathlib import Path

from manifest_checks.objects import selects
from manifest_checks.programs import OPERATOR, SUBCOMMANDS, expected_ports, unknown_variables

# What each service answers in grpc.health.v1 and under which paths; the rest comes from --help.
HEALTH = {
    "rendezvous": {""},
    "share": {""},
    "shard-worker": {"", "swarm.v1.ShardService"},
    "gateway": {"", "swarm.v1.InferenceService"},
}
# Which shard a worker's pod serves.
SHARD_LABEL = "llama-swarm/shard"
HTTP_PATHS = {"/healthz", "/readyz", "/metrics"}
# What a probe must ask: (startup, readiness, liveness).
PROBES = {
    "rendezvous": ("", "", ""),
    "share": ("", "", ""),
    "shard-worker": ("swarm.v1.ShardService", "swarm.v1.ShardService", ""),
    "gateway": ("/healthz", "/readyz", "/healthz"),
}


def workload_faults(workload, program):
    container, service = workload.container, workload.service
    parts = set(re.findall(r"\$\((\w+)\)", " ".join(v.get("value", "") for v in container.get("env", []))))
    yield from unknown_variables(service, program, set(workload.environment) - parts)
    unknown = (name for name, value in workload.environment.items() if "$(" in value)
    yield from (f"{name} names a variable that is not before it" for name in unknown)
    for argument in container.get("args", []) + container.get("command", []):
        if argument.startswith("--") and argument.split("=")[0] not in program.flags:
            yield f"{service} knows no flag {argument}"
    image, _, tag = container["image"].partition("@")[0].rpartition(":")
    wanted = OPERATOR if service in SUBCOMMANDS else service
    if image.rpartition("/")[2] != wanted or not re.match(r"\d", tag):
        yield f"image {container['image']} is not {wanted} by version"
    if service in SUBCOMMANDS and container.get("args", [None])[0] != service:
        yield f"{OPERATOR} is not told to {service}: {container.get('args')}"
    pinned = re.compile(r"hf:.*@[0-9a-f]{40}")
    for model in workload.models:
        if model.startswith("hf:") and not pinned.fullmatch(model):
            yield f"{model} names no commit: a pod which comes back in a year may load another file"
    opened = expected_ports(program, workload.environment)
    declared = {(port.get("protocol", "TCP"), port["containerPort"]) for port in container["ports"]}
    for protocol, port in declared ^ set(opened):
        where = "the manifest" if (protocol, port) in declared else "the service"
        yield f"only {where} names port {port}/{protocol}"
    annotations = workload.spec["template"]["metadata"].get("annotations", {})
    scraped = ("TCP", int(annotations.get("prometheus.io/port", 0)))
    # A gateway's other ports ask for a key.
    has_metrics = "metrics" if "--metrics-listen" in program.flags else "grpc"
    if opened.get(scraped) != has_metrics or annotations.get("prometheus.io/path") not in HTTP_PATHS:
        yield f"no metrics at {scraped[1]}{annotations.get('prometheus.io/path')}"


def probe_faults(workload, program):
    opened = expected_ports(program, workload.environment)
    named = {port["name"]: port["containerPort"] for port in workload.container["ports"]}
    for kind, wanted in zip(("startup", "readiness", "liveness"), PROBES[workload.service], strict=True):
        probe = workload.container.get(f"{kind}Probe")
        if probe is None:
            yield f"no {kind} probe"
            continue
        if grpc := probe.get("grpc"):
            port, use, asked = grpc["port"], "grpc", grpc.get("service", "")
            known = asked in HEALTH[workload.service]
        else:
            http = probe.get("httpGet", {})
            port, use, asked = named.get(http.get("port"), http.get("port")), "http", http.get("path")
            known = asked in HTTP_PATHS
        if opened.get(("TCP", port)) != use:
            yield f"the {kind} probe asks port {port}, where the service has no {use}"
        if not known:
            yield f"the {kind} probe asks for {asked!r}, which the service does not know"
        elif asked != wanted:
            yield f"the {kind} probe asks for {asked!r}, not for {wanted!r}"


def ending_faults(workload, program):
    if "--drain-timeout" not in program.flags:
        return
    drain = float(program.value(workload.environment, "--drain-timeout"))
    pause = workload.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = workload.pod.get("terminationGracePeriodSeconds", 30)
    if grace <= drain + pause:
        yield f"killed after {grace} s, but draining takes up to {drain + pause:g} s"


def worker_set_faults(workload):
    """Its pods are the replicas of one shard, which an update takes one after the other, and no two share a node."""
    if workload.kind != "StatefulSet" or workload.spec.get("podManagementPolicy") != "Parallel":
        yield "workers must be a StatefulSet that starts all pods at once"
    update = workload.spec.get("updateStrategy", {})
    if update.get("type") != "RollingUpdate" or update.get("rollingUpdate") or not workload.spec.get("minReadySeconds"):
        yield "an update must take one replica after the other, and wait between two"
    shard, label = workload.environment.get("LLAMA_SWARM_SHARD_ID"), workload.labels.get(SHARD_LABEL)
    if shard is None or shard != label or workload.spec["selector"]["matchLabels"].get(SHARD_LABEL) != label:
        yield f"the shard is {shard!r}, its label {label!r}: not one and the same of all that the set selects"
    rules = workload.pod.get("affinity", {}).get("podAntiAffinity", {})
    terms = rules.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    terms += [each["podAffinityTerm"] for each in rules.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
    keeps_apart = [t for t in terms if t["topologyKey"] == "kubernetes.io/hostname"]
    if [t.get("matchLabelKeys") for t in keeps_apart] != [[SHARD_LABEL]] or not selects(
        keeps_apart[0]["labelSelector"], workload.labels
    ):
        yield f"replicas of the shard may share a node: {terms}"


def shard_faults(overlay, programs):
    """Each shard has its set, of as many replicas as wanted, and evictions leave one of them."""
    shards, replicas = overlay.shards, overlay.replicas
    sets = [w for w in overlay.workloads if w.service == "shard-worker"]
    served = sorted(w.environment.get("LLAMA_SWARM_SHARD_ID", "") for w in sets)
    if served != sorted(map(str, range(shards))):
        yield f"{overlay.name}: sets of shards {served}, not of 0 to {shards - 1}"
    for workload in sets:
        if workload.spec.get("replicas") != replicas:
            yield f"{workload}: {workload.spec.get('replicas')} replicas, not {replicas}"
    for workload in overlay.workloads:
        total = programs[workload.service].value(workload.environment, "--total-shards")
        if int(total) != shards:
            yield f"{workload}: a swarm of {total} shards, not {shards}"
        budgets = [b for b in overlay.of("PodDisruptionBudget") if selects(b["spec"]["selector"], workload.labels)]
        at_once = sum(b["spec"]["maxUnavailable"] for b in budgets)
        if workload.service == "shard-worker" and at_once > max(1, replicas - 1):
            yield f"{workload}: {at_once} may be evicted at once, which may be all {replicas} of its shard"


def identity_faults(workload, program):
    """A pod that comes back is the same peer: its key lies on what outlives it, as do files that others wait for."""
    file = program.value(workload.environment, "--identity") or ""
    mounts = {m["mountPath"]: m["name"] for m in workload.container.get("volumeMounts", [])}
    volume = mounts.get(str(Path(file).parent))
    claims = {claim["metadata"]["name"] for claim in workload.spec.get("volumeClaimTemplates", [])}
    if workload.service != "gateway" and volume not in claims:
        yield f"the identity {file!r} is not on a volume that outlives the pod"
    if volume is None:
        yield f"the identity {file!r} is not on a volume"
    folders = [v for name, v in workload.environment.items() if name in ("HF_HOME", "LLAMA_SWARM_CACHE_DIR")]
    fetches = any(model.startswith(("hf:", "pypi:", "swarm:")) for model in workload.models)
    for folder in folders if fetches else []:
        lies_on = next((name for mount, name in mounts.items() if Path(folder).is_relative_to(mount)), None)
        if lies_on is None:
            yield f"the model's folder {folder} is not on a volume"
        elif workload.service == "share" and lies_on not in claims:
            yield f"the files in {folder}, which others wait for, are not on a volume that outlives the pod"
