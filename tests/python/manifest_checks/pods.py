"""Flags, ports and probes of pods, their endings, and which shard and which peer they are."""

import re
from pathlib import Path

from manifest_checks.programs import OPERATOR, SHARDS, SUBCOMMANDS, expected_ports, unknown_variables

# What each service answers in grpc.health.v1 and under which paths; the rest comes from --help.
HEALTH = {
    "rendezvous": {""},
    "share": {""},
    "shard-worker": {"", "swarm.v1.ShardService"},
    "gateway": {"", "swarm.v1.InferenceService"},
}
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
    yield from unknown_variables(service, program, workload.environment)
    for argument in container.get("args", []) + container.get("command", []):
        if argument.startswith("--") and argument.split("=")[0] not in program.flags:
            yield f"{service} knows no flag {argument}"
    image, _, tag = container["image"].partition("@")[0].rpartition(":")
    wanted = OPERATOR if service in SUBCOMMANDS else service
    if image.rpartition("/")[2] != wanted or not re.match(r"\d", tag):
        yield f"image {container['image']} is not {wanted} by version"
    if service in SUBCOMMANDS and container.get("args", [None])[0] != service:
        yield f"{OPERATOR} is not told to {service}: {container.get('args')}"
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


def worker_set_faults(workload, program):
    if workload.kind != "StatefulSet" or workload.spec.get("podManagementPolicy") != "Parallel":
        yield "workers must be a StatefulSet that starts all pods at once"
    total = int(program.value(workload.environment, "--total-shards"))
    if not workload.spec.get("replicas") == total == SHARDS:
        yield f"{workload.spec.get('replicas')} replicas, {total} shards, expected {SHARDS}"
    shard = next((v for v in workload.container["env"] if v["name"] == "LLAMA_SWARM_SHARD_ID"), {})
    source = shard.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
    if source != "metadata.labels['apps.kubernetes.io/pod-index']":
        yield f"the shard comes from {source}, not from the pod's ordinal"


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
