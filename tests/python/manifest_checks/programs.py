"""What the services say of themselves: flags, environment variables, defaults, ports."""

import re
import subprocess
from dataclasses import dataclass

SERVICES = ("rendezvous", "shard-worker", "gateway")
# Nodes that are a sub-command of the operator's command, and its image.
SUBCOMMANDS = ("share",)
OPERATOR = "llama-swarm"
SHARDS = 8
IMAGE_USER = "65532:65532"
# Variables of libraries, which no --help lists.
LIBRARY_VARIABLES = {
    "rendezvous": set(),
    "share": {"HF_HOME", "HF_ENDPOINT", "HF_TOKEN"},
    "shard-worker": {"HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "CUDA_CACHE_PATH"},
    "gateway": {"HF_HOME", "HF_ENDPOINT", "HF_TOKEN"},
}


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
    for flag, use in (("--http-listen", "http"), ("--metrics-listen", "metrics")):
        if flag in program.flags and program.value(environment, flag):
            ports["TCP", port_of(program.value(environment, flag))] = use
    for protocol, port in re.findall(r"/(udp|tcp)/(\d+)", program.value(environment, "--listen") or ""):
        ports[protocol.upper(), int(port)] = "swarm"
    return ports


def unknown_variables(service, program, names):
    for name in sorted(names):
        standard = name.startswith("OTEL_") or name in LIBRARY_VARIABLES[service]
        if name not in program.variables and not standard:
            yield f"{service} knows no variable {name}"
