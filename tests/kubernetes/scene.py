"""What scenarios in a cluster share: the swarm as kubectl shows it and as its nodes see it."""

import http.client
import json
import subprocess
import time
from dataclasses import dataclass, field

from cluster import ROOT, Cluster
from observing import PROMISE, QUESTION, SHARDS, Client, Watch, wait_whole
from policies import Policies
from running import Failure, Report, free_ports, run, wait_until

NAMESPACE = "llama-swarm"
WORKER_SETS = [f"shard-worker-{shard}" for shard in range(SHARDS)]
WORKERS = [f"{name}-0" for name in WORKER_SETS]
IMAGES = tuple(f"{name}:{{}}" for name in ("rendezvous", "shard-worker", "gateway"))
IMAGES += tuple(f"{name}:{{}}-model" for name in ("shard-worker", "gateway", "llama-swarm"))
# Has a shell; docker/build-offline.sh makes it.
PROBER = "llama-swarm/base-build:bookworm"
GRPC_PORT = {"rendezvous": 50052, "gateway": 50050, "shard": 50051, "share": 50053}
# Pieces of an answer that are there before something is lost.
SOME_PIECES = 20
BOUND = 300.0


class PortForward(Client):
    """Asks the gateway through `kubectl port-forward`, as the docs say."""

    def __init__(self, scene):
        super().__init__(*free_ports(1), scene.key)
        command = ["kubectl", "--kubeconfig", scene.cluster.kubeconfig, "--namespace", scene.namespace, "port-forward"]
        self.child = subprocess.Popen(
            [*map(str, command), f"service/{scene.prefix}gateway", f"{self.http_port}:8080"],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self.ready, "/readyz says yes through port-forward", ["gateway"])

    def close(self):
        self.child.terminate()
        self.child.wait()


@dataclass
class Scene:
    cluster: Cluster
    report: Report
    tag: str
    reference: str = ""  # what one process answers to QUESTION
    policies: Policies = None
    # Of the swarm that is there now.
    namespace: str = NAMESPACE
    prefix: str = ""
    shards: int = SHARDS
    replicas: int = 1
    applied: list = field(default_factory=list)  # its objects
    key: str = ""
    client: PortForward = None
    watches: dict = field(default_factory=dict)  # pod → Watch
    peers: list = None  # for each shard, the set of its workers' peer ids
    answer: str = ""
    long_answer: str = ""

    def enter(self, namespace, prefix="", shards=SHARDS, replicas=1):
        """Another swarm, of which nothing is there yet but its namespace."""
        self.namespace, self.prefix, self.shards, self.replicas = namespace, prefix, shards, replicas
        self.applied, self.key, self.peers, self.answer, self.long_answer = [], "", None, "", ""
        text = (ROOT / "k8s/namespace.yaml").read_text().replace(f"name: {NAMESPACE}", f"name: {namespace}")
        self.cluster.kubectl("apply", "--filename", "-", input=text)
        # What newer clusters do by themselves.
        label = f"kubernetes.io/metadata.name={namespace}"
        self.cluster.kubectl("label", "namespace", namespace, label, "--overwrite")

    def look_away(self):
        for watch in self.watches.values():
            watch.stop()
        self.watches.clear()
        if self.client:
            self.client.close()
        self.client = None

    def leave(self):
        """Nothing is left of the swarm, and the next one finds room."""
        self.look_away()
        gone = ("delete", "namespace", self.namespace, "--ignore-not-found", f"--timeout={BOUND:.0f}s")
        self.cluster.kubectl(*gone, bound=BOUND + 20)
        self.cluster.renew_volumes()

    def kubectl(self, *arguments, **options):
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, **options)

    def pods(self):
        items = json.loads(self.kubectl("get", "pods", "--output", "json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def workers(self, shard):
        return [f"{self.prefix}shard-worker-{shard}-{replica}" for replica in range(self.replicas)]

    def all_workers(self):
        return [worker for shard in range(self.shards) for worker in self.workers(shard)]

    def wait_for_workers(self, bound=BOUND):
        """Until all sets have what their templates say."""
        for shard in range(self.shards):
            self.wait_for(f"statefulset/{self.prefix}shard-worker-{shard}", bound)

    def wait_for(self, name, bound=BOUND):
        self.kubectl("rollout", "status", name, f"--timeout={bound:.0f}s", bound=bound + 20)

    def service_of(self, pod):
        return pod.removeprefix(self.prefix).partition("-")[0]

    def asking_inside(self, pod):
        """A command that runs in a pod, and where it finds the node there."""
        command = ["kubectl", "--kubeconfig", self.cluster.kubeconfig, "--namespace", self.namespace, "exec", pod, "--"]
        service = self.service_of(pod)
        return command, GRPC_PORT.get(service), ["--api-key", self.key] if service == "gateway" else []

    def watch(self, pod):
        if old := self.watches.get(pod):
            old.stop()
        self.watches[pod] = Watch.inside(pod, *self.asking_inside(pod))

    def watch_all_again(self):
        """Everybody, and who serves which shard is learned again."""
        self.look_away()
        self.client = PortForward(self)
        # Who is not one of ours is a test's.
        for pod in self.pods():
            if self.service_of(pod) in GRPC_PORT:
                self.watch(pod)
        for watch in self.watches.values():
            watch.wait(lambda seen: True, "any status")
        self.peers = [{self.peer_of(worker) for worker in self.workers(shard)} for shard in range(self.shards)]
        self.wait_whole()

    def peer_of(self, pod):
        if pod in self.watches:
            return self.watches[pod].last().peer
        command, port, key = self.asking_inside(pod)
        status = ("/usr/local/bin/llama-swarm", "status", "--json", "--addr", f"127.0.0.1:{port}", *key)
        return json.loads(run(*command, *status))["node"]

    def gateway(self):
        """What a gateway sees."""
        return next(watch for pod, watch in self.watches.items() if self.service_of(pod) == "gateway")

    def others(self, pod):
        return {name: watch for name, watch in self.watches.items() if name != pod}

    def wait_whole(self, since=None):
        return wait_whole(self.watches, self.peers, since)

    def metrics(self, pod):
        """Name → sum over its labels."""
        item = self.pods()[pod]
        port = item["metadata"]["annotations"]["prometheus.io/port"]
        url = f"http://{item['status']['podIP']}:{port}/metrics"
        # From its own node, whom network policies let through.
        sums = {}
        for line in self.cluster.on(item["spec"]["nodeName"], "curl", "-sf", url).splitlines():
            if line and not line.startswith("#"):
                sample, _, value = line.partition("} ") if "} " in line else line.partition(" ")
                name = sample.partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value.split()[0])
        return sums

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
    return see_state(scene, pod, "OFFLINE", issued, returned, how, PROMISE)


def see_state(scene, pod, state, issued, returned, how, promise):
    """Gives when the last of the others saw it."""
    seen = {
        name: watch.wait(has_state(scene, pod, state), f"{pod} {state}", issued).at
        for name, watch in scene.others(pod).items()
    }
    slowest = max(seen.values())
    scene.report.check(
        slowest - issued <= promise + (returned - issued),
        f"{how} {pod}: {state} on all {len(seen)} others {slowest - issued:.2f} s after the command began, which took "
        f"{returned - issued:.2f} s; promised are {promise:.0f} s",
    )
    return slowest


def has_state(scene, pod, state):
    shard, peer = int(pod.split("-")[-2]), scene.peer_of(pod)
    return lambda seen: seen.state(shard, peer) == state


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
    eviction = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod, "namespace": scene.namespace}}
    path = f"/api/v1/namespaces/{scene.namespace}/pods/{pod}/eviction"
    scene.kubectl("create", "--raw", path, "--filename", "-", input=json.dumps(eviction))


def keep_asking(scene, over, answers, client):
    while not over.is_set():
        try:
            answers.append(client.ask(QUESTION, 32))
        except (Failure, OSError, http.client.HTTPException, subprocess.TimeoutExpired) as failure:
            answers.append(f"no answer: {failure}")
        over.wait(0.5)


def loaded_missing(seen):
    return sum("LOADED" not in {r["state"] for r in seen.replicas(shard).values()} for shard in range(SHARDS))
