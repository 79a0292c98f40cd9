"""The Dockerfile and the Compose file."""

import re

import yaml

from manifest_checks.members import SECRET_FILE, is_true, listen_faults
from manifest_checks.programs import IMAGE_USER, SERVICES, SHARDS, expected_ports, port_of, unknown_variables


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
    return re.sub(r"\$\{(\w+)(?::?-([^}]*)|:\?[^}]*)?\}", lambda m: m[2] if m[2] is not None else m[1], str(value))


def secret_faults(containers):
    """One container makes the secret before all others, which cannot change it."""
    writers = [name for name, c in containers.items() if "secret:/etc/llama-swarm/secret" in c.get("volumes", [])]
    if writers != ["secret"]:
        yield f"the secret is written by {writers}"
    if containers["secret"]["command"] != ["secret", "new", "--if-missing", SECRET_FILE]:
        yield f"the secret is made by {containers['secret']['command']}"


def member_faults(service, container, program, environment):
    if program.value(environment, "--secret-file") != SECRET_FILE or is_true(environment.get("LLAMA_SWARM_OPEN_SWARM")):
        yield "it does not ask for the swarm's secret"
    if "secret:/etc/llama-swarm/secret:ro" not in container["volumes"]:
        yield "it does not have the swarm's secret"
    if container["depends_on"]["secret"]["condition"] != "service_completed_successfully":
        yield "it may start before there is a secret"
    if service == "gateway" and (
        not program.value(environment, "--api-keys-file")
        or is_true(environment.get("LLAMA_SWARM_OPEN_GATEWAY"))
        or "keys:/etc/llama-swarm/keys:ro" not in container["volumes"]
    ):
        yield "it asks for no key"


def compose_faults(file, programs, health, binaries):
    containers = yaml.safe_load(file.read_text())["services"]
    built = {name: c for name, c in containers.items() if c.get("build")}
    ours = {name: c for name, c in built.items() if c["build"]["target"] in SERVICES}
    shards = sorted(
        c["environment"]["LLAMA_SWARM_SHARD_ID"] for c in ours.values() if c["build"]["target"] == "shard-worker"
    )
    if shards != [str(shard) for shard in range(SHARDS)]:
        yield f"shards {shards}"
    if {c["build"]["target"] for c in ours.values()} != set(SERVICES):
        yield f"services {sorted(ours)}"
    yield from secret_faults(containers)
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
        yield from (f"{name}: {fault}" for fault in member_faults(service, container, program, environment))
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
        environment = dict(re.findall(r"(\w+)=(\S+)", said.get("ENV", "")))
        yield from (f"{service}: {fault}" for fault in listen_faults(environment, programs[service]))
        yield from (f"{service}: {fault}" for fault in unknown_variables(service, programs[service], environment))
        grpc = f"{port_of(programs[service].defaults['--grpc-listen'])}/tcp"
        if grpc not in said.get("EXPOSE", "").split():
            yield f"{service}: does not expose {grpc}"
        command = said.get("HEALTHCHECK", "").partition("CMD ")[2]
        command_faults = health_command_faults(
            service, yaml.safe_load(command) or [], programs[service], health, binaries
        )
        yield from (f"{service}: {fault}" for fault in command_faults)
