"""The swarm in containers, and what its nodes see."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from container_tests.engine import ROOT, remove_all, succeeds
from container_tests.images import COLLECTOR
from observing import SHARDS, Client, Watch, wait_whole
from running import Failure, Report, free_ports, run, wait_until

WORKERS = [f"worker-{shard}" for shard in range(SHARDS)]
NODES = ["rendezvous", *WORKERS, "gateway"]
GRPC_PORT = {"rendezvous": 50052, "gateway": 50050} | {worker: 50051 for worker in WORKERS}


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
        self.images, self.collector = images, collector
        if collector:
            self.compose_command += ["--profile", "tracing"]
            self.variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{COLLECTOR}:4317"
            self.variables["OTEL_COLLECTOR_IMAGE"] = collector.image

    def compose(self, *arguments):
        return run(*self.compose_command, *arguments, cwd=ROOT, env=self.variables)

    def make_key(self):
        """As docker/compose.yaml tells at its head."""
        self.key = self.compose("run", "--rm", "-T", "new-key", "tests").strip()

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


def watch_inside(swarm, node, container):
    key = ["--api-key", swarm.key] if node == "gateway" else []
    return Watch.inside(node, ["docker", "exec", container], GRPC_PORT[node], key)


def the_only(things, what):
    if len(things) != 1:
        raise Failure(f"not one {what}, but {len(things)}")
    return next(iter(things))


class Observers:
    """A watch in every container, and one from outside that tells how late those are."""

    def __init__(self, swarm, containers, outside):
        self.inside = {node: watch_inside(swarm, node, container) for node, container in containers.items()}
        self.outside = Watch("gateway", [*outside, "--api-key", swarm.key])

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


@dataclass
class Scene:
    """What scenarios share: the swarm when it is whole, and who is who in it."""

    swarm: Swarm
    report: Report
    containers: dict  # node → id
    observers: Observers
    peers: list  # for each shard, the set of its workers' peer ids
    bin_dir: Path
    answer: str = ""

    @classmethod
    def start(cls, swarm, report, bin_dir):
        since = time.monotonic()
        swarm.make_key()
        swarm.up()
        containers = {node: the_only(swarm.container_ids(node), f"container of {node}") for node in NODES}
        client = [bin_dir / "llama-swarm", "status", "--json", "--watch", "--addr", f"127.0.0.1:{swarm.grpc_port}"]
        scene = cls(swarm, report, containers, Observers(swarm, containers, client), [], bin_dir)
        wait_until(swarm.ready, "/readyz says yes", NODES)
        report.check(True, f"ten containers are up and /readyz says yes after {time.monotonic() - since:.1f} s")
        return scene

    def wait_whole(self, since=None):
        return wait_whole(self.observers.inside, self.peers, since)


def transports(scene):
    lasts = [watch.last() for watch in scene.observers.inside.values()]
    replicas = [replica for last in lasts for shard in range(SHARDS) for replica in last.replicas(shard).values()]
    counted = Counter(replica["transport"] for replica in replicas if not replica["local"])
    return ", ".join(f"{transport} {count}" for transport, count in counted.items())
