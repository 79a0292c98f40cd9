"""Holds the Kubernetes manifests and the Compose file against the services they start.

    python manifests.py --bin-dir target/release [--root REPOSITORY] [--no-scan]

Renders every overlay with `kubectl kustomize`, validates all objects offline for the three newest versions of
Kubernetes that the schemas are there for, runs a policy scanner, and compares names, ports, flags and probes with what
the services say in `--help`. Prints a line a check; exits with 1 on a fault, with 2 when a tool is missing.
Needs manifests-requirements.txt and kubectl.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import kubernetes_validate
import yaml

SERVICES = ("rendezvous", "shard-worker", "gateway")
SHARDS = 8
IMAGE_USER = "65532:65532"
# What each service answers in grpc.health.v1 and under which paths; the rest comes from --help.
HEALTH = {
    "rendezvous": {""},
    "shard-worker": {"", "swarm.v1.ShardService"},
    "gateway": {"", "swarm.v1.InferenceService"},
}
HTTP_PATHS = {"/healthz", "/readyz", "/metrics"}
# What a probe must ask: (startup, readiness, liveness).
PROBES = {
    "rendezvous": ("", "", ""),
    "shard-worker": ("swarm.v1.ShardService", "swarm.v1.ShardService", ""),
    "gateway": ("/healthz", "/readyz", "/healthz"),
}
# Variables of libraries, which no --help lists.
LIBRARY_VARIABLES = {
    "rendezvous": set(),
    "shard-worker": {"HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "CUDA_CACHE_PATH"},
    "gateway": {"HF_HOME", "HF_ENDPOINT", "HF_TOKEN"},
}
# Made by hand or by others, and told of in docs/kubernetes.md.
FOREIGN_SECRETS = {"rendezvous-identity", "hub-token"}
FOREIGN_KINDS = {"PodMonitor"}
# Volumes that the restricted Pod Security Standard allows.
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def give_up(message):
    print(f"cannot check: {message}", file=sys.stderr)
    sys.exit(2)


class Report:
    """Collects faults and prints a line for each check."""

    def __init__(self):
        self.failed = False

    def check(self, name, faults):
        faults = list(faults)
        for fault in faults:
            print(f"FAULT: {name}: {fault}")
        if not faults:
            print(f"ok: {name}")
        self.failed |= bool(faults)


# What the services say of themselves.


@dataclass
class Program:
    """Flags, environment variables and defaults, as `--help` prints them."""

    flags: set
    variables: dict  # name → flag
    defaults: dict  # flag → default

    def value(self, environment, flag):
        """What the service uses for a flag: the variable's value if set, else its default."""
        names = [name for name, of in self.variables.items() if of == flag]
        given = [environment[name] for name in names if environment.get(name)]
        return given[0] if given else self.defaults.get(flag)


def read_help(binary, *subcommand):
    try:
        text = subprocess.run(
            [binary, *subcommand, "--help"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LookupError(f"{binary.name} {' '.join(subcommand)} --help: {error}") from error
    # A flag opens its paragraph, under an indent that no other line of a paragraph has; lines may be wrapped anywhere.
    program, paragraphs = Program(set(), {}, {}), re.split(r"^ {2,6}(?:-\w, )?(?=--[a-z])", text, flags=re.MULTILINE)
    for paragraph in paragraphs[1:]:
        said = " ".join(paragraph.split())
        flag = re.match(r"--[a-z0-9-]+", said)[0]
        program.flags.add(flag)
        program.variables.update((name, flag) for name in re.findall(r"\[env: (\w+)=", said))
        # The text before it may mention a default in words.
        if defaults := re.findall(r"\[default: ([^\]]*)\]", said):
            program.defaults[flag] = defaults[-1]
    return program


def port_of(address):
    return int(str(address).rpartition(":")[2])


def expected_ports(program, environment):
    """(protocol, port) → what for, that a service opens under an environment."""
    ports = {("TCP", port_of(program.value(environment, "--grpc-listen"))): "grpc"}
    if "--http-listen" in program.flags:
        ports["TCP", port_of(program.value(environment, "--http-listen"))] = "http"
    for protocol, port in re.findall(r"/(udp|tcp)/(\d+)", program.value(environment, "--listen") or ""):
        ports[protocol.upper(), int(port)] = "swarm"
    return ports


def unknown_variables(service, program, names):
    for name in sorted(names):
        standard = name.startswith("OTEL_") or name in LIBRARY_VARIABLES[service]
        if name not in program.variables and not standard:
            yield f"{service} knows no variable {name}"


# Kubernetes.


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

    def __str__(self):
        return f"{self.overlay}: {self.kind} {self.name}"


class Overlay:
    """The objects of one rendered overlay."""

    def __init__(self, name, objects):
        self.name, self.objects = name, objects
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
            environment[variable["name"]] = variable.get("value", "")
        return Workload(self.name, o["kind"], o["metadata"]["name"], o["spec"], environment)


def render(kubectl, folder):
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{folder}: {done.stderr.strip()}")
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def schema_faults(overlay, version):
    for o in overlay.objects:
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


def workload_faults(workload, program):
    container, service = workload.container, workload.service
    yield from unknown_variables(service, program, workload.environment)
    for argument in container.get("args", []) + container.get("command", []):
        if argument.startswith("--") and argument.split("=")[0] not in program.flags:
            yield f"{service} knows no flag {argument}"
    image, _, tag = container["image"].partition("@")[0].rpartition(":")
    if image.rpartition("/")[2] != service or not re.match(r"\d", tag):
        yield f"image {container['image']} is not {service} by version"
    opened = expected_ports(program, workload.environment)
    declared = {(port.get("protocol", "TCP"), port["containerPort"]) for port in container["ports"]}
    for protocol, port in declared ^ set(opened):
        where = "the manifest" if (protocol, port) in declared else "the service"
        yield f"only {where} names port {port}/{protocol}"
    annotations = workload.spec["template"]["metadata"].get("annotations", {})
    scraped = ("TCP", int(annotations.get("prometheus.io/port", 0)))
    if opened.get(scraped) not in ("grpc", "http") or annotations.get("prometheus.io/path") not in HTTP_PATHS:
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


def restricted_faults(workload):
    """The restricted Pod Security Standard, and what we want besides: a read-only root, no token, bounded memory."""
    pod, containers = workload.pod, workload.pod["containers"] + workload.pod.get("initContainers", [])
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= RESTRICTED_VOLUMES:
            yield f"volume {volume}"
    if pod.get("automountServiceAccountToken") is not False or pod.get("serviceAccountName", "default") == "default":
        yield "a service account's token"
    for container in containers:
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        wanted = {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": int(IMAGE_USER.split(":")[0]),
        }
        given = {"privileged": False, **context}
        yield from (f"{field} is {given.get(field)}" for field, value in wanted.items() if given.get(field) != value)
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield f"capabilities {context.get('capabilities')}"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"seccompProfile {context.get('seccompProfile')}"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield "hostPort"
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            yield "requests for cpu and memory and a limit for memory are wanted"


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
    """A pod that comes back is the same peer: its key lies on what outlives it."""
    file = program.value(workload.environment, "--identity") or ""
    mounts = {m["mountPath"]: m["name"] for m in workload.container.get("volumeMounts", [])}
    volume = mounts.get(str(Path(file).parent))
    claims = {claim["metadata"]["name"] for claim in workload.spec.get("volumeClaimTemplates", [])}
    secrets = {v["name"] for v in workload.pod.get("volumes", []) if "secret" in v}
    lasting = {"shard-worker": claims, "rendezvous": secrets}.get(workload.service)
    if lasting is not None and volume not in lasting:
        yield f"the identity {file!r} is not on a volume that outlives the pod"
    if volume is None:
        yield f"the identity {file!r} is not on a volume"
    folders = [v for name, v in workload.environment.items() if name in ("HF_HOME", "LLAMA_SWARM_CACHE_DIR")]
    fetches = workload.environment.get("LLAMA_SWARM_MODEL", "").startswith(("hf:", "pypi:"))
    for folder in folders if fetches else []:
        if not any(Path(folder).is_relative_to(mount) for mount in mounts):
            yield f"the model's folder {folder} is not on a volume"


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


def allows(policies, way, pod, other, port):
    """Whether policies let one pod receive from (ingress) or send to (egress) another pod of the namespace."""
    applying = [p for p in policies if way.title() in p["policyTypes"] and selects(p["podSelector"], pod)]
    if not applying:
        return True
    peers = "from" if way == "ingress" else "to"
    for rule in (rule for policy in applying for rule in policy.get(way) or []):
        here = [peer for peer in rule.get(peers, []) if "podSelector" in peer and "namespaceSelector" not in peer]
        peer_fits = peers not in rule or any(selects(peer["podSelector"], other) for peer in here)
        ports = [(p.get("protocol", "TCP"), p["port"]) for p in rule.get("ports", [])]
        if peer_fits and ("ports" not in rule or port in ports):
            return True
    return False


def to_other_namespaces(policies, way, pod):
    """Ports that a pod may use with some pod of another namespace, or with anybody."""
    peers = "from" if way == "ingress" else "to"
    rules = (rule for p in policies if selects(p["podSelector"], pod) for rule in p.get(way) or [])
    outside = (rule for rule in rules if peers not in rule or any("namespaceSelector" in peer for peer in rule[peers]))
    return {(p.get("protocol", "TCP"), p["port"]) for rule in outside for p in rule.get("ports", [])}


def policy_faults(overlay, programs):
    policies = [policy["spec"] for policy in overlay.of("NetworkPolicy")]
    pods = [(w.name, w.labels, expected_ports(programs[w.service], w.environment)) for w in overlay.workloads]
    for name, labels, ports in pods:
        closed = {
            way for p in policies for way in p["policyTypes"] if p["podSelector"] == {} and not p.get(way.lower())
        }
        if closed != {"Ingress", "Egress"}:
            yield f"{name}: what no policy allows is open"
        if ("UDP", 53) not in to_other_namespaces(policies, "egress", labels):
            yield f"{name}: cannot ask for names"
        for port in (port for port, use in ports.items() if use != "swarm"):
            if port not in to_other_namespaces(policies, "ingress", labels):
                yield f"{name}: nobody can scrape or ask {port[1]}"
    for (source, from_labels, _), (target, to_labels, ports) in product(pods, pods):
        for port, use in ports.items():
            passes = allows(policies, "egress", from_labels, to_labels, port) and allows(
                policies, "ingress", to_labels, from_labels, port
            )
            # Inside the swarm everything is libp2p; whatever else a node serves is for people.
            if passes != (use == "swarm"):
                yield f"{source} → {target} {port[1]}/{port[0]}: {'open' if passes else 'closed'}"
    for policy in overlay.of("NetworkPolicy"):
        selected = [ports for _, labels, ports in pods if selects(policy["spec"]["podSelector"], labels)]
        if not selected:
            yield f"policy {policy['metadata']['name']} selects no pod"
        named = {
            (p.get("protocol", "TCP"), p["port"])
            for rule in policy["spec"].get("ingress") or []
            for p in rule.get("ports", [])
        }
        for protocol, port in named - {port for ports in selected for port in ports}:
            yield f"policy {policy['metadata']['name']} opens {port}/{protocol}, where nothing listens"


def reference_faults(overlay):
    """Everything that is named exists, and every workload has what belongs to it."""
    for workload in overlay.workloads:
        for source in workload.container.get("envFrom", []):
            if not overlay.named("ConfigMap", source["configMapRef"]["name"]):
                yield f"{workload}: no ConfigMap {source['configMapRef']['name']}"
        secrets = {v["secret"]["secretName"] for v in workload.pod.get("volumes", []) if "secret" in v}
        secrets |= {
            v["valueFrom"]["secretKeyRef"]["name"]
            for v in workload.container["env"]
            if "secretKeyRef" in v.get("valueFrom", {})
        }
        for name in secrets - FOREIGN_SECRETS:
            yield f"{workload}: nobody makes the secret {name}"
        if not overlay.named("ServiceAccount", workload.pod.get("serviceAccountName")):
            yield f"{workload}: no such service account"
        if not selects(workload.spec["selector"], workload.labels):
            yield f"{workload}: does not select its own pods"
        if workload.kind == "StatefulSet" and not overlay.named("Service", workload.spec["serviceName"]):
            yield f"{workload}: no Service {workload.spec['serviceName']}"
        if sum(selects(b["spec"]["selector"], workload.labels) for b in overlay.of("PodDisruptionBudget")) != 1:
            yield f"{workload}: not under exactly one disruption budget"
        scaled = any(
            h["spec"]["scaleTargetRef"]["name"] == workload.name for h in overlay.of("HorizontalPodAutoscaler")
        )
        if scaled == ("replicas" in workload.spec):
            yield f"{workload}: either replicas or an autoscaler"
    for first, second in product(overlay.workloads, overlay.workloads):
        if first is not second and selects(first.spec["selector"], second.labels):
            yield f"{first} selects the pods of {second.name}"
    yield from service_faults(overlay)


def service_faults(overlay):
    for service in overlay.of("Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        pods = [w for w in overlay.workloads if selects({"matchLabels": spec["selector"]}, w.labels)]
        if not pods:
            yield f"{overlay.name}: Service {name} selects no pod"
        for port, pod in product(spec["ports"], pods):
            target = [p for p in pod.container["ports"] if p["name"] == port["targetPort"]]
            if [(p["containerPort"], p["protocol"]) for p in target] != [(port["port"], port["protocol"])]:
                yield f"{overlay.name}: Service {name} port {port['name']} does not lead to {pod.name}"
    backends = [
        path["backend"]["service"]
        for i in overlay.of("Ingress")
        for rule in i["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    for backend in backends:
        service = overlay.named("Service", backend["name"])
        if not service or backend["port"].get("name") not in {p["name"] for p in service["spec"]["ports"]}:
            yield f"{overlay.name}: Ingress to {backend}, which is not there"
    for monitor, workload in product(overlay.of("PodMonitor"), overlay.workloads):
        ports = {p["name"] for p in workload.container["ports"]}
        wanted = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        if not selects(monitor["spec"]["selector"], workload.labels) or not wanted <= ports:
            yield f"{workload}: not found by PodMonitor {monitor['metadata']['name']}"


def scan_faults(root, overlays):
    checkov = shutil.which("checkov", path=str(Path(sys.executable).parent)) or shutil.which("checkov")
    if not checkov:
        give_up("no checkov: install tests/python/manifests-requirements.txt, or leave it out by --no-scan")
    with tempfile.TemporaryDirectory() as folder:
        files = [root / "docker/Dockerfile"]
        for overlay in overlays:
            files.append(Path(folder, f"{overlay.name}.yaml"))
            files[-1].write_text(yaml.safe_dump_all(overlay.objects))
        arguments = [part for file in files for part in ("-f", file)]
        done = subprocess.run(
            [checkov, "--config-file", root / "k8s/.checkov.yaml", *arguments], capture_output=True, text=True
        )
    passed = sum(map(int, re.findall(r"Passed checks: (\d+)", done.stdout)))
    if done.returncode or not passed:
        yield (done.stdout + done.stderr).strip()


# Docker.


def health_command_faults(service, command, program, health, binaries):
    """A container's health check: `llama-swarm health --addr … [--service …]`."""
    if command[:2] != ["/usr/local/bin/llama-swarm", "health"]:
        yield f"the health check is {command}"
        return
    if health is None:
        yield f"the health check runs `llama-swarm health`, which {binaries}/llama-swarm does not have"
    options = dict(zip(command[2::2], command[3::2], strict=False))
    for flag in set(options) - (health.flags if health else {"--addr", "--service"}):
        yield f"llama-swarm health knows no flag {flag}"
    if port_of(options.get("--addr", 0)) != port_of(program.defaults["--grpc-listen"]):
        yield f"the health check asks {options.get('--addr')}, not the gRPC port"
    # In Docker, healthy means ready.
    ready = {"rendezvous": "", "shard-worker": "swarm.v1.ShardService", "gateway": "swarm.v1.InferenceService"}[service]
    if options.get("--service", "") != ready:
        yield f"the health check asks for {options.get('--service', '')!r}, not for {ready!r}"


def seconds(text):
    return sum(float(n) * {"s": 1, "m": 60, "h": 3600}[unit] for n, unit in re.findall(r"([\d.]+)([smh])", text))


def fill_in(value):
    """The defaults of `${NAME:-default}`; what must be given stands as its name."""
    if isinstance(value, dict):
        return {key: fill_in(v) for key, v in value.items()}
    if isinstance(value, list):
        return [fill_in(v) for v in value]
    return re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda m: m[2] if m[2] is not None else m[1], str(value))


def compose_faults(file, programs, health, binaries):
    containers = yaml.safe_load(file.read_text())["services"]
    ours = {name: c for name, c in containers.items() if c.get("build")}
    shards = sorted(
        c["environment"]["LLAMA_SWARM_SHARD_ID"] for c in ours.values() if c["build"]["target"] == "shard-worker"
    )
    if shards != [str(shard) for shard in range(SHARDS)]:
        yield f"shards {shards}"
    if {c["build"]["target"] for c in ours.values()} != set(SERVICES):
        yield f"services {sorted(ours)}"
    for name, container in containers.items():
        if (
            container.get("read_only") is not True
            or container.get("cap_drop") != ["ALL"]
            or "no-new-privileges:true" not in container.get("security_opt", [])
        ):
            yield f"{name}: not locked up"
        if container.get("privileged") or container.get("cap_add") or container.get("network_mode") == "host":
            yield f"{name}: privileges"
    for name, container in ours.items():
        service = container["build"]["target"]
        program, environment = programs[service], fill_in(container["environment"])
        yield from (f"{name}: {fault}" for fault in unknown_variables(service, program, environment))
        opened = expected_ports(program, environment)
        for published in fill_in(container.get("ports", [])):
            port, _, protocol = published.rpartition(":")[2].partition("/")
            if ((protocol or "tcp").upper(), int(port)) not in opened:
                yield f"{name}: publishes {published}, where nothing listens"
        if "--drain-timeout" in program.flags and seconds(container.get("stop_grace_period", "10s")) <= float(
            program.value(environment, "--drain-timeout")
        ):
            yield f"{name}: killed before its sessions are drained"
        test = container.get("healthcheck", {}).get("test", [None])
        yield from (f"{name}: {fault}" for fault in health_command_faults(service, test[1:], program, health, binaries))


def dockerfile_faults(file, programs, health, binaries):
    stages, stage = {}, []
    for line in file.read_text().replace("\\\n", " ").splitlines():
        if found := re.match(r"FROM \S+ AS (\S+)", line):
            stage = stages[found[1]] = []
        elif line and not line.startswith("#"):
            stage.append(line.split(None, 1))
    if f"USER {IMAGE_USER}" not in [" ".join(line) for line in stages["runtime"]]:
        yield f"the images do not run as {IMAGE_USER}"
    for service in SERVICES:
        said = dict(stages.get(service, []))
        if said.get("ENTRYPOINT") != f'["/usr/local/bin/{service}"]':
            yield f"{service}: entry point {said.get('ENTRYPOINT')}"
        grpc = f"{port_of(programs[service].defaults['--grpc-listen'])}/tcp"
        if grpc not in said.get("EXPOSE", "").split():
            yield f"{service}: does not expose {grpc}"
        command = said.get("HEALTHCHECK", "").partition("CMD ")[2]
        command_faults = health_command_faults(
            service, yaml.safe_load(command) or [], programs[service], health, binaries
        )
        yield from (f"{service}: {fault}" for fault in command_faults)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bin-dir", type=Path, required=True, help="where the services' binaries are")
    arguments.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the repository")
    arguments.add_argument("--no-scan", action="store_true", help="leave out the policy scanner")
    options = arguments.parse_args()

    kubectl = shutil.which("kubectl")
    if not kubectl:
        give_up("no kubectl in PATH: it renders the manifests (`kubectl kustomize`)")
    try:
        programs = {name: read_help(options.bin_dir / name) for name in SERVICES}
    except LookupError as error:
        give_up(f"{error}; build the services first, see --bin-dir")
    try:
        health = read_help(options.bin_dir / "llama-swarm", "health")
    except LookupError:
        health = None

    report, overlays = Report(), []
    folders = [options.root / "k8s/base", *sorted((options.root / "k8s/overlays").iterdir())]
    for folder in folders:
        try:
            overlays.append(Overlay(folder.name, render(kubectl, folder)))
            report.check(
                f"k8s/{folder.relative_to(options.root / 'k8s')} renders, {len(overlays[-1].objects)} objects", []
            )
        except ValueError as error:
            report.check(f"{folder.name} renders", [error])
    for version in newest_versions(3):
        report.check(
            f"objects are valid in Kubernetes {version}, strictly",
            (f for o in overlays for f in schema_faults(o, version)),
        )

    def every(name, faults, service=None, needs_program=True):
        """Runs a check over all workloads, or those of one service."""
        chosen = [w for o in overlays for w in o.workloads if service in (None, w.service)]
        found = ((w, faults(w, programs[w.service]) if needs_program else faults(w)) for w in chosen)
        report.check(f"{name} ({len(chosen)} workloads)", (f"{w}: {fault}" for w, of_one in found for fault in of_one))

    every("variables, flags, images, ports and metrics are the services' own", workload_faults)
    every("probes ask what the services answer, each its own question", probe_faults)
    every("pods outlive their drain timeout", ending_faults)
    every("pods are restricted", restricted_faults, needs_program=False)
    every(f"worker sets have {SHARDS} pods, the ordinal is the shard", worker_set_faults, service="shard-worker")
    every("identities and models lie on volumes", identity_faults)
    report.check(
        "network policies cover every pod and open only the drawn arrows",
        (f"{o.name}: {f}" for o in overlays for f in policy_faults(o, programs)),
    )
    report.check("what is named exists", (f for o in overlays for f in reference_faults(o)))
    docker = options.root / "docker"
    report.check(
        "docker/compose.yaml fits the services",
        compose_faults(docker / "compose.yaml", programs, health, options.bin_dir),
    )
    report.check(
        "docker/Dockerfile fits the services",
        dockerfile_faults(docker / "Dockerfile", programs, health, options.bin_dir),
    )
    if not options.no_scan:
        report.check("the policy scanner finds nothing (skips: k8s/.checkov.yaml)", scan_faults(options.root, overlays))
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
