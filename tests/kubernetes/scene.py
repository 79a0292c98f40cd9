"""What scenarios in a cluster share: the swarm as kubectl shows it and as its nodes see it."""

import json
import subprocess
import time
from dataclasses import dataclass, field

from cluster import Cluster
from observing import PROMISE, QUESTION, SHARDS, Client, Watch, wait_whole
from policies import Policies
from running import Failure, Report, free_ports, wait_until

NAMESPACE = "llama-swarm"
WORKER_SETS = [f"shard-worker-{shard}" for shard in range(SHARDS)]
WORKERS, SPARES = ([f"{name}-{replica}" for name in WORKER_SETS] for replica in (0, 1))
IMAGES = ("rendezvous:{}", "shard-worker:{}-model", "gateway:{}-model")
# Has a shell; docker/build-offline.sh makes it.
PROBER = "llama-swarm/base-build:bookworm"
GRPC_PORT = {"rendezvous": 50052, "gateway": 50050, "shard": 50051}
# Pieces of an answer that are there before something is lost.
SOME_PIECES = 20
BOUND = 300.0


class PortForward(Client):
    """Asks the gateway through `kubectl port-forward`, as the docs say."""

    def __init__(self, cluster, key):
        super().__init__(*free_ports(1), key)
        command = ["kubectl", "--kubeconfig", cluster.kubeconfig, "--namespace", NAMESPACE, "port-forward"]
        self.child = subprocess.Popen(
            [*map(str, command), "service/gateway", f"{self.http_port}:8080"],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self.ready, "/readyz says yes through port-forward")

    def close(self):
        self.child.terminate()
        self.child.wait()


@dataclass
class Scene:
    cluster: Cluster
    report: Report
    tag: str
    policies: Policies = None
    key: str = ""
    client: PortForward = None
    watches: dict = field(default_factory=dict)  # pod → Watch
    peers: list = None  # for each shard, the set of its workers' peer ids
    answer: str = ""
    long_answer: str = ""

    def kubectl(self, *arguments, **options):
        return self.cluster.kubectl("--namespace", NAMESPACE, *arguments, **options)

    def pods(self):
        items = json.loads(self.kubectl("get", "pods", "--output", "json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def wait_for_workers(self, bound=BOUND):
        """Until all sets have what their templates say."""
        for name in WORKER_SETS:
            self.kubectl("rollout", "status", f"statefulset/{name}", f"--timeout={bound:.0f}s", bound=bound + 20)

    def watch(self, pod):
        command = ["kubectl", "--kubeconfig", self.cluster.kubeconfig, "--namespace", NAMESPACE, "exec", pod, "--"]
        if old := self.watches.get(pod):
            old.stop()
        service = pod.partition("-")[0]
        key = ["--api-key", self.key] if service == "gateway" else []
        self.watches[pod] = Watch.inside(pod, command, GRPC_PORT[service], key)

    def others(self, pod):
        return {name: watch for name, watch in self.watches.items() if name != pod}

    def wait_whole(self, since=None):
        return wait_whole(self.watches, self.peers, since)

    def on_node_of(self, pod, script):
        """A script on a pod's node, where $PID is its main process."""
        spec = self.pods()[pod]["spec"]
        node = spec["nodeName"]
        labels = {"pod.name": pod, "container.name": spec["containers"][0]["name"]}
        filters = [word for key, value in labels.items() for word in ("--filter", f"label=io.kubernetes.{key}={value}")]
        own = self.cluster.on(node, "docker", "ps", "--quiet", *filters).strip()
        pid = self.cluster.on(node, "docker", "inspect", "--format", "{{.State.Pid}}", own).strip()
        return self.cluster.on(node, "sh", "-c", script.replace("$PID", pid))


def minor_version(scene):
    version = json.loads(scene.cluster.kubectl("version", "--output", "json"))["serverVersion"]
    return int(version["minor"].rstrip("+"))


class Untouched:
    """Which pods there are and how often their containers were restarted."""

    def __init__(self, scene):
        self.before = self.look(scene)

    @staticmethod
    def look(scene):
        counts = restart_counts(scene)
        return {name: (pod["metadata"]["uid"], counts[name]) for name, pod in scene.pods().items()}

    def check(self, scene, except_for):
        now = self.look(scene)
        changed = {name for name in self.before | now if self.before.get(name) != now.get(name)}
        scene.report.check(
            changed == {except_for}, f"nothing but {except_for} was restarted: {', '.join(sorted(changed))}"
        )


def lose(scene, pod, act):
    issued = time.monotonic()
    act()
    return issued, time.monotonic()


def see_offline(scene, pod, issued, returned, how):
    """Gives when the last of the others saw it."""
    seen = {
        name: watch.wait(is_offline(scene, pod), f"{pod} OFFLINE", issued).at
        for name, watch in scene.others(pod).items()
    }
    slowest = max(seen.values())
    scene.report.check(
        slowest - issued <= PROMISE + (returned - issued),
        f"{how} {pod}: OFFLINE on all {len(seen)} others {slowest - issued:.2f} s after the command began, which took "
        f"{returned - issued:.2f} s",
    )
    return slowest


def is_offline(scene, pod):
    shard = WORKERS.index(pod)
    (peer,) = scene.peers[shard]
    return lambda seen: seen.state(shard, peer) == "OFFLINE"


def see_back(scene, pod, offline, how):
    wait_until(lambda: is_ready(scene, pod), f"{pod} is ready again")
    scene.watch(pod)
    seen = scene.wait_whole(offline)
    again = scene.client.ask(QUESTION, 32)
    scene.report.check(
        again == scene.answer,
        f"{how} {pod}: the same peer is LOADED again for all {max(seen.values()) - offline:.1f} s later; the same answer",
    )


def come_back(scene, pod, whole=True):
    wait_until(lambda: is_ready(scene, pod) and not is_ending(scene, pod), f"{pod} is ready again")
    scene.watch(pod)
    scene.watches[pod].wait(lambda seen: True, "any status")
    if whole:
        scene.wait_whole()


def is_ending(scene, pod):
    return "deletionTimestamp" in scene.pods().get(pod, {"metadata": {"deletionTimestamp": ""}})["metadata"]


def is_ready(scene, pod):
    conditions = scene.pods().get(pod, {"status": {}})["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def restart_counts(scene):
    return {
        name: sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
        for name, pod in scene.pods().items()
    }


def evict(scene, pod):
    version = "policy/v1" if minor_version(scene) >= 22 else "policy/v1beta1"
    eviction = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    scene.kubectl("create", "--raw", path, "--filename", "-", input=json.dumps(eviction))


def keep_asking(scene, over, answers, client):
    while not over.is_set():
        try:
            answers.append(client.ask(QUESTION, 32))
        except (Failure, OSError) as failure:
            answers.append(f"no answer: {failure}")
        over.wait(0.5)


def loaded_missing(seen):
    return sum("LOADED" not in {r["state"] for r in seen.replicas(shard).values()} for shard in range(SHARDS))
