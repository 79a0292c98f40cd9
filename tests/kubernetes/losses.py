"""Processes, pods and a node are lost, also in the middle of an answer."""

import time

from observing import PROMISE, QUESTION, disturbed_answer, longest_pause, text_of
from running import wait_until
from scene import (
    BOUND,
    SOME_PIECES,
    WORKERS,
    Untouched,
    come_back,
    has_state,
    is_ready,
    lose,
    restart_counts,
    see_back,
    see_offline,
    see_state,
)

# How long a node may wait for an answer before its peer is SUSPECT, on a busy machine, and half a second between two
# questions: docs/decisions/0019.
SILENCE = 4.5
# 14 s of silence end a connection, and what was under way when that began.
ENDED = 25.0


def a_killed_process(scene):
    """The kubelet starts the container again in the same pod, often before anybody could know that it was gone."""
    pod, before = WORKERS[3], Untouched(scene)
    count = restart_counts(scene)[pod]
    issued = time.monotonic()
    scene.on_node_of(pod, "kill -9 $PID")
    wait_until(lambda: restart_counts(scene)[pod] > count and is_ready(scene, pod), f"the kubelet restarts {pod}")
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
    pod = WORKERS[2]
    pieces, _ = in_an_answer(scene, lambda: scene.kubectl("delete", "pod", pod, "--wait=false"))
    scene.report.check(
        text_of(pieces) == scene.long_answer,
        f"{pod} deleted in an answer: the text is the undisturbed one; longest pause {longest_pause(pieces):.2f} s",
    )
    come_back(scene, pod)


def an_answer_over_a_loss(scene):
    """The only worker of a shard is killed in an answer; the answer waits for the pod and goes on."""
    pod = WORKERS[6]
    pieces, killed_at = in_an_answer(scene, lambda: scene.on_node_of(pod, "kill -9 $PID"))
    after = sum(at > killed_at for at, _ in pieces)
    scene.report.check(
        bool(after) and text_of(pieces) == scene.long_answer,
        f"{pod}, the only one of its shard, killed in an answer, {after} of {len(pieces)} pieces before its end: the "
        f"text is the undisturbed one; longest pause {longest_pause(pieces):.2f} s",
    )
    come_back(scene, pod)


def in_an_answer(scene, act):
    return disturbed_answer(scene.client, lambda pieces: len(pieces) == SOME_PIECES, lambda _: act())


def the_rendezvous_goes(scene):
    pod, watch = "rendezvous-0", scene.watches["rendezvous-0"]
    peer = watch.last().peer
    scene.kubectl("delete", "pod", pod, "--wait=false")
    answer = scene.client.ask(QUESTION, 32)
    scene.report.check(answer == scene.answer, "rendezvous deleted: questions are answered meanwhile")
    come_back(scene, pod)
    now = scene.watches[pod].last().peer
    scene.report.check(now == peer, "the rendezvous is back as the same peer")


def a_hung_process(scene):
    """It runs, but answers nobody: SUSPECT at once, OFFLINE when its connections end, restarted by its liveness probe."""
    pod = WORKERS[4]
    count = restart_counts(scene)[pod]
    issued, returned = lose(scene, pod, lambda: scene.on_node_of(pod, "kill -STOP $PID"))
    see_state(scene, pod, "SUSPECT", issued, returned, "kill -STOP", SILENCE)
    offline = see_state(scene, pod, "OFFLINE", issued, returned, "kill -STOP", ENDED)
    took = wait_until(lambda: restart_counts(scene)[pod] > count, f"the kubelet restarts {pod}", bound=BOUND, poll=1)
    scene.report.check(True, f"the liveness probe had the hung worker restarted {took:.0f} s later")
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
        (name, pod): watch.wait(has_state(scene, pod, "OFFLINE"), f"{pod} OFFLINE", issued).at
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
