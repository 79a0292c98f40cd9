"""Runs k8s/overlays/local in a live cluster and holds it against what docs/kubernetes.md promises.

    python scenarios.py [--tag 0.1.0] [--nodes 3] [--keep]

Makes the cluster (cluster.py), brings the images llama-swarm/*:TAG to it, applies the manifests as the docs say, asks the
model, loses workers, the rendezvous and a node. Prints a line a check, with what was measured; exits with 1 on a fault.
Needs what cluster.py needs, the images with the model inside, and PyYAML. Removes the cluster at the end.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml
from cluster import Cluster, ClusterError
from older import for_server
from policies import Policies
from scene import (
    BOUND,
    IMAGES,
    NAMESPACE,
    PROBER,
    ROOT,
    SOME_PIECES,
    SPARES,
    WORKERS,
    PortForward,
    Scene,
    Untouched,
    come_back,
    evict,
    is_offline,
    is_ready,
    keep_asking,
    loaded_missing,
    lose,
    minor_version,
    restart_counts,
    see_back,
    see_offline,
    text_of,
    wait_until_long,
)

sys.path.insert(0, str(ROOT / "tests/python"))
from observing import (
    LONG_ANSWER,
    LONG_QUESTION,
    PROMISE,
    QUESTION,
    SHARDS,
    Failure,
    Report,
    longest_pause,
    note,
    wait_until,
)


def everything_starts(scene):
    since = time.monotonic()
    for difference in apply(scene, ROOT / "k8s"):
        note(f"Kubernetes 1.{minor_version(scene)}: {difference}")
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "identity.key"
        subprocess.run([ROOT / "k8s/make-identity.sh", key], check=True, timeout=60)
        scene.kubectl("create", "secret", "generic", "rendezvous-identity", f"--from-file={key}")
    scene.kubectl("rollout", "status", "statefulset/shard-worker", "--timeout=300s", bound=BOUND)
    scene.kubectl("rollout", "status", "deployment/gateway", "--timeout=300s", bound=BOUND)
    took = time.monotonic() - since
    pods = scene.pods()
    nodes = {pod["spec"]["nodeName"] for name, pod in pods.items() if name in WORKERS}
    restarts = sum(restart_counts(scene).values())
    scene.report.check(len(pods) == 10, f"ten pods, and the gateway is ready {took:.1f} s after kubectl apply")
    scene.report.check(restarts == 0, f"{restarts} containers were restarted on the way")
    scene.report.check(len(nodes) == len(scene.cluster.nodes), f"the workers are spread over {len(nodes)} nodes")


def apply(scene, folder):
    """Applies the local overlay of a copy of k8s/; gives what had to be said otherwise."""
    objects = rendered(scene, folder / "overlays/local")
    differences = for_server(objects, minor_version(scene))
    scene.kubectl("apply", "--filename", "-", input=listed(objects))
    return differences


def rendered(scene, overlay):
    return [item for item in yaml.safe_load_all(scene.cluster.kubectl("kustomize", overlay)) if item]


def listed(objects):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def other_overlays_are_accepted(scene):
    """By the API server, which makes none of it but the namespace. What only an operator knows is left out."""
    scene.cluster.kubectl("apply", "--filename", ROOT / "k8s/base/namespace.yaml")
    for overlay in ("production", "gpu"):
        objects = rendered(scene, ROOT / "k8s" / "overlays" / overlay)
        for_server(objects, minor_version(scene))
        known = [item for item in objects if item["kind"] != "PodMonitor"]
        told = scene.kubectl("apply", "--dry-run=server", "--filename", "-", input=listed(known))
        scene.report.check(
            len(told.splitlines()) == len(known), f"the API server accepts the {len(known)} objects of {overlay}"
        )


def everybody_sees_all(scene):
    scene.client = PortForward(scene.cluster)
    for pod in scene.pods():
        scene.watch(pod)
    for watch in scene.watches.values():
        watch.wait(lambda seen: True, "any status")
    scene.peers = [{scene.watches[worker].last().peer} for worker in WORKERS]
    scene.wait_whole()
    scene.report.check(len(set.union(*scene.peers)) == SHARDS, "ten pods see 8 shards, one LOADED worker each")


def the_model_answers(scene):
    scene.answer = scene.client.ask(QUESTION, 32)
    scene.report.check("Paris" in scene.answer, f"{QUESTION} {scene.answer!r}")
    pieces = list(scene.client.stream(LONG_QUESTION, LONG_ANSWER))
    scene.long_answer = text_of(pieces)
    note(f"undisturbed: {len(pieces)} pieces, longest pause {longest_pause(pieces):.2f} s")


def a_killed_process(scene):
    """The kubelet starts the container again in the same pod, often before anybody could know that it was gone."""
    pod, before = WORKERS[3], Untouched(scene)
    issued = time.monotonic()
    scene.on_node_of(pod, "kill -9 $PID")
    wait_until(lambda: restart_counts(scene)[pod] == 1 and is_ready(scene, pod), f"the kubelet restarts {pod}")
    took = time.monotonic() - issued
    scene.watch(pod)
    scene.wait_whole()
    again = scene.client.ask(QUESTION, 32)
    scene.report.check(
        again == scene.answer, f"kill -9 {pod}: restarted in its pod and ready after {took:.1f} s; the same answer"
    )
    before.check(scene, except_for=pod)


def a_deleted_pod(scene):
    """As docs/kubernetes.md says: --grace-period 0 --force."""
    pod, before = WORKERS[5], Untouched(scene)
    delete = ("delete", "pod", pod, "--grace-period", "0", "--force")
    issued, returned = lose(scene, pod, lambda: scene.kubectl(*delete))
    offline = see_offline(scene, pod, issued, returned, "kubectl delete pod --force")
    see_back(scene, pod, offline, "kubectl delete pod --force")
    before.check(scene, except_for=pod)


def a_pod_that_drains(scene):
    """Deleted in the middle of an answer: the worker ends what it has begun, and the pod goes then."""
    pod, pieces, deletion = WORKERS[2], [], None
    for piece in scene.client.stream(LONG_QUESTION, LONG_ANSWER):
        pieces.append(piece)
        if len(pieces) == SOME_PIECES:
            deletion = threading.Thread(target=scene.kubectl, args=("delete", "pod", pod, "--wait=false"))
            deletion.start()
    deletion.join()
    same = text_of(pieces) == scene.long_answer
    scene.report.check(
        same,
        f"{pod} deleted in an answer: the text is the undisturbed one; longest pause {longest_pause(pieces):.2f} s",
    )
    come_back(scene, pod)


def an_answer_over_a_loss(scene):
    """The only worker of a shard is killed in an answer; the answer waits for the pod and goes on."""
    pod, pieces, killed, killer = WORKERS[6], [], [], None

    def kill():
        scene.on_node_of(pod, "kill -9 $PID")
        killed.append(time.monotonic())

    for piece in scene.client.stream(LONG_QUESTION, LONG_ANSWER):
        pieces.append(piece)
        if len(pieces) == SOME_PIECES:
            killer = threading.Thread(target=kill)
            killer.start()
    killer.join()
    after = sum(at > killed[0] for at, _ in pieces)
    scene.report.check(
        bool(after) and text_of(pieces) == scene.long_answer,
        f"{pod}, the only one of its shard, killed in an answer, {after} of {len(pieces)} pieces before its end: the "
        f"text is the undisturbed one; longest pause {longest_pause(pieces):.2f} s",
    )
    come_back(scene, pod)


def only_drawn_arrows_pass(scene):
    """From pods of three namespaces to each kind of node; the same before and after the policies are in force."""
    for namespace in ("stranger", "monitoring", NAMESPACE):
        start_prober(scene, namespace)
    expected = expected_reach()
    scene.policies.stop()
    scene.policies.lift()
    without = reach(scene, expected)
    scene.report.check(all(without.values()), f"without network policies, all {len(without)} ways are open")
    scene.policies = Policies(scene.cluster)
    scene.policies.start()
    scene.policies.first.wait(BOUND)
    seen = reach(scene, expected)
    wrong = [" → ".join(way) for way in expected if seen[way] != expected[way]]
    passed, closed = sum(seen.values()), len(seen) - sum(seen.values())
    scene.report.check(
        not wrong, f"with them {passed} are open and {closed} closed, as drawn {', '.join(wrong)}".strip()
    )
    scene.kubectl("delete", "pod", "prober", "--grace-period=1")
    for namespace in ("stranger", "monitoring"):
        scene.cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def expected_reach():
    """(namespace, pod, port) → whether it may be reached. What is in no NetworkPolicy is closed."""
    doors = [("gateway", "8080"), ("gateway", "50050"), ("gateway", "4001")]
    doors += [("rendezvous", "4001"), ("rendezvous", "50052"), ("shard-worker", "4001"), ("shard-worker", "50051")]
    open_to = {
        "stranger": {("gateway", "8080"), ("gateway", "50050")},
        "monitoring": {door for door in doors if door[1] != "4001"},
        NAMESPACE: set(),
    }
    return {(namespace, *door): door in open_to[namespace] for namespace in open_to for door in doors}


def start_prober(scene, namespace):
    if namespace != NAMESPACE:
        scene.cluster.kubectl("create", "namespace", namespace)
        scene.cluster.kubectl(
            "label", "namespace", namespace, f"kubernetes.io/metadata.name={namespace}", "--overwrite"
        )
    command = ("--command", "--", "sleep", "3600")
    scene.cluster.kubectl(
        *("--namespace", namespace, "run", "prober", "--image", PROBER, "--image-pull-policy", "Never", *command)
    )
    scene.cluster.kubectl("--namespace", namespace, "wait", "pod/prober", "--for=condition=Ready", "--timeout=120s")


def reach(scene, ways):
    addresses = {
        name.split("-0")[0]: pod["status"]["podIP"] for name, pod in scene.pods().items() if name.endswith("-0")
    }
    addresses["gateway"] = next(p["status"]["podIP"] for n, p in scene.pods().items() if n.startswith("gateway"))

    def is_open(namespace, pod, port):
        knock = f"timeout 3 bash -c '</dev/tcp/{addresses[pod]}/{port}' 2> /dev/null && echo open || echo closed"
        return (
            scene.cluster.kubectl("--namespace", namespace, "exec", "prober", "--", "bash", "-c", knock).strip()
            == "open"
        )

    return {way: is_open(*way) for way in ways}


def the_rendezvous_goes(scene):
    pod, watch = "rendezvous-0", scene.watches["rendezvous-0"]
    peer = watch.last().peer
    scene.kubectl("delete", "pod", pod, "--wait=false")
    answer = scene.client.ask(QUESTION, 32)
    scene.report.check(answer == scene.answer, "rendezvous deleted: questions are answered meanwhile")
    come_back(scene, pod)
    now = scene.watches[pod].last().peer
    scene.report.check(now == peer, "the rendezvous is back as the same peer")


def evictions_wait_for_each_other(scene):
    first, second = WORKERS[0], WORKERS[1]
    evict(scene, first)
    try:
        evict(scene, second)
        refusal = ""
    except ClusterError as error:
        refusal = str(error)
    scene.report.check("disruption budget" in refusal, f"{first} may be evicted, {second} not yet: {refusal[-90:]}")
    come_back(scene, first)


def a_rolling_restart(scene):
    """One worker after the other. Where no pause between two can be said, the next may go before all see the last."""
    answers, missing, took = restart_all_while_asking(scene)
    at_most = 1 if minor_version(scene) >= 25 else 2
    scene.report.check(
        max(missing) <= at_most, f"rolling restart: never more than {max(missing)} shards missing (allowed {at_most})"
    )
    refused = sum("swarm_not_ready" in answer for answer in answers)
    right = answers.count(scene.answer)
    scene.report.check(
        right > 0 and right + refused == len(answers),
        f"rolling restart: of {len(answers)} questions asked in its {took:.0f} s {right} had the same answer, {refused} "
        "were refused as swarm_not_ready",
    )


def spares_take_over(scene):
    """A second worker for every shard: a rolling restart of the first ones is not noticed by who asks."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "k8s", folder, dirs_exist_ok=True)
        file = Path(folder) / "overlays/local/kustomization.yaml"
        file.write_text(file.read_text() + "components: [../../components/spare-replicas]\n")
        apply(scene, Path(folder))
    scene.kubectl("rollout", "status", "statefulset/shard-worker-spare", "--timeout=300s", bound=BOUND)
    for shard, spare in enumerate(SPARES):
        scene.watch(spare)
        scene.peers[shard].add(scene.watches[spare].wait(lambda seen: True, "any status").peer)
    scene.wait_whole()
    scene.report.check(all(len(peers) == 2 for peers in scene.peers), "with spares, all see two LOADED workers a shard")
    answers, missing, took = restart_all_while_asking(scene)
    right = answers.count(scene.answer)
    scene.report.check(max(missing) == 0, f"rolling restart with spares: {max(missing)} shards missing at any time")
    scene.report.check(
        0 < right == len(answers),
        f"rolling restart with spares: {right} of {len(answers)} questions asked in its {took:.0f} s had the same answer",
    )


def restart_all_while_asking(scene):
    """Answers or refusals, how many shards were missing in each status of the gateway, and seconds."""
    since, over, answers = time.monotonic(), threading.Event(), []
    asking = threading.Thread(target=lambda: keep_asking(scene, over, answers))
    scene.kubectl("rollout", "restart", "statefulset/shard-worker")
    asking.start()
    try:
        scene.kubectl("rollout", "status", "statefulset/shard-worker", "--timeout=600s", bound=620)
    finally:
        over.set()
        asking.join(BOUND)
    took = time.monotonic() - since
    gateway = next(watch for pod, watch in scene.watches.items() if pod.startswith("gateway"))
    missing = [loaded_missing(seen) for seen in gateway.history if seen.at >= since]
    for pod in WORKERS:
        scene.watch(pod)
    scene.wait_whole()
    for wrong in [answer for answer in answers if answer != scene.answer and "swarm_not_ready" not in answer][:3]:
        note(f"instead: {wrong}")
    return answers, missing, took


def a_hung_process(scene):
    """It runs, but answers nobody: OFFLINE for the swarm at once, restarted when the liveness probe has had enough."""
    pod = WORKERS[4]
    count = restart_counts(scene)[pod]
    issued, returned = lose(scene, pod, lambda: scene.on_node_of(pod, "kill -STOP $PID"))
    offline = see_offline(scene, pod, issued, returned, "kill -STOP")
    took = wait_until_long(lambda: restart_counts(scene)[pod] == count + 1, f"the kubelet restarts {pod}")
    scene.report.check(True, f"the liveness probe had the hung worker restarted after {took:.0f} s")
    see_back(scene, pod, offline, "kill -STOP")


def a_lost_node(scene):
    pods = scene.pods()
    gateway = next(name for name in pods if name.startswith("gateway"))
    spared = {pods[gateway]["spec"]["nodeName"], scene.cluster.nodes[0]}
    node = next(node for node in scene.cluster.nodes if node not in spared)
    lost = [pod for pod in pods if pods[pod]["spec"]["nodeName"] == node]
    workers = [pod for pod in lost if pod in WORKERS]
    issued = time.monotonic()
    scene.cluster.lose(node)
    returned = time.monotonic()
    seen = {
        (name, pod): watch.wait(is_offline(scene, pod), f"{pod} OFFLINE", issued).at
        for pod in workers
        for name, watch in scene.watches.items()
        if name not in lost
    }
    slowest = max(seen.values())
    scene.report.check(
        slowest - issued <= PROMISE + (returned - issued),
        f"{node} lost with {', '.join(lost)}: all workers OFFLINE on the {len(scene.watches) - len(lost)} other pods "
        f"{slowest - issued:.2f} s after the command began, which took {returned - issued:.2f} s",
    )
    since = time.monotonic()
    scene.cluster.regain(node)
    for pod in lost:
        come_back(scene, pod, whole=False)
    scene.wait_whole(slowest)
    again = scene.client.ask(QUESTION, 32)
    scene.report.check(
        again == scene.answer, f"{node} is back: the same peers after {time.monotonic() - since:.0f} s, the same answer"
    )


# The others build on these.
FIRST = (
    other_overlays_are_accepted,
    everything_starts,
    everybody_sees_all,
    the_model_answers,
)
SCENARIOS = (
    only_drawn_arrows_pass,
    a_killed_process,
    a_deleted_pod,
    a_pod_that_drains,
    an_answer_over_a_loss,
    the_rendezvous_goes,
    evictions_wait_for_each_other,
    a_rolling_restart,
    a_hung_process,
    a_lost_node,
    spares_take_over,
)


# The whole.


def show_logs(scene, suspects):
    for suspect in sorted(suspects):
        # Who asks knows the gateway by its service.
        name = "deployment/gateway" if suspect == "gateway" else suspect
        for previous in ([], ["--previous"]):
            command = [
                "kubectl",
                "--kubeconfig",
                scene.cluster.kubeconfig,
                "--namespace",
                NAMESPACE,
                "logs",
                "--tail=40",
            ]
            log = subprocess.run([*command, *previous, name], capture_output=True, text=True, timeout=60)
            print(f"--- {name} {' '.join(previous)}\n{log.stdout}", flush=True)


def run_scenarios(cluster, report, tag, only):
    scene = Scene(cluster, report, Policies(cluster))
    try:
        since = time.monotonic()
        cluster.up()
        cluster.load(PROBER, *(f"llama-swarm/{image.format(tag)}" for image in IMAGES))
        report.check(True, f"a cluster of {len(cluster.nodes)} nodes is there after {time.monotonic() - since:.0f} s")
        scene.policies.start()
        for scenario in (*FIRST, *SCENARIOS):
            if not only or scenario.__name__ in only or scenario in FIRST:
                scenario(scene)
    except Failure as failure:
        report.check(False, failure, failure.nodes)
    except (ClusterError, subprocess.TimeoutExpired) as error:
        report.check(False, error)
    finally:
        for watch in scene.watches.values():
            watch.stop()
        if scene.client:
            scene.client.close()
    if scene.policies.is_alive():
        scene.policies.stop()
    if report.suspects:
        show_logs(scene, report.suspects)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", default="0.1.0")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the cluster")
    parser.add_argument("--only", action="append", help="a scenario, by its name; more than once: several")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    cluster, report = Cluster(f"llama-swarm-cluster-{os.getpid()}", arguments.nodes), Report()
    try:
        run_scenarios(cluster, report, arguments.tag, arguments.only)
    finally:
        if arguments.keep:
            note(f"kept: cluster.py down --name {cluster.name}")
        else:
            cluster.down()
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
