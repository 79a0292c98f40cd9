"""Workers are evicted and restarted, without spares and with them; an update changes every pod."""

import json
import threading
import time

from cluster import Failure
from overlays import NEXT_TAG, TAG, add_spares, add_update, apply, copy_of_manifests, rendered
from running import note, wait_until
from scene import (
    BOUND,
    WORKER_SETS,
    WORKERS,
    come_back,
    evict,
    keep_asking,
    loaded_missing,
    minor_version,
)

# An update is a minute or so for each of the two replicas; all shards go at the same time.
UPDATE = 600.0
# At the same time, while everything is updated.
ASKERS = 2
# To ask by the Service, when a gateway that ends is still in it.
ATTEMPTS = 4
# How a question may be refused while no worker of a shard is there.
REFUSALS = ("swarm_not_ready", "hop_failed")


def evictions_wait_for_each_other(scene):
    first, second = WORKERS[0], WORKERS[1]
    allowed = ("get", "poddisruptionbudget", "shard-worker", "--output", "jsonpath={.status.disruptionsAllowed}")
    wait_until(lambda: scene.kubectl(*allowed).strip() == "1", "the budget allows to evict one worker")
    evict(scene, first)
    try:
        evict(scene, second)
        refusal = ""
    except Failure as error:
        refusal = str(error)
    scene.report.check("disruption budget" in refusal, f"{first} may be evicted, {second} not yet: {refusal[-90:]}")
    come_back(scene, first)


def a_rolling_restart(scene):
    """All shards at once: without spares there is no swarm until the new pods have loaded."""
    answers, _, took = restart_all_while_asking(scene)
    refused = {cause: sum(cause in answer for answer in answers) for cause in REFUSALS}
    right = answers.count(scene.answer)
    told = ", ".join(f"{count} were refused as {cause}" for cause, count in refused.items())
    scene.report.check(
        right > 0 and right + sum(refused.values()) == len(answers),
        f"rolling restart: of {len(answers)} questions asked in its {took:.0f} s {right} had the same answer, {told}",
    )


def spares_come(scene):
    """A second worker for every shard of the swarm that runs."""
    with copy_of_manifests() as folder:
        add_spares(folder)
        for difference in apply(scene, rendered(scene, folder / "overlays/local"), waits=True):
            note(f"Kubernetes 1.{minor_version(scene)}: {difference}")
    scene.replicas = 2
    scene.wait_for_workers(UPDATE)
    scene.watch_all_again()
    scene.report.check(all(len(peers) == 2 for peers in scene.peers), "with spares, all see two LOADED workers a shard")


def spares_take_over(scene):
    """A rolling restart of all workers is not noticed by who asks."""
    answers, missing, took = restart_all_while_asking(scene)
    right = answers.count(scene.answer)
    scene.report.check(max(missing) == 0, f"rolling restart with spares: {max(missing)} shards missing at any time")
    scene.report.check(
        0 < right == len(answers),
        f"rolling restart with spares: {right} of {len(answers)} questions asked in its {took:.0f} s had the same answer",
    )


def an_update_with_spares(scene):
    """Other images and one more setting: every pod is made again, while somebody asks the gateway's Service."""
    before, since = uids(scene), time.monotonic()
    for node in scene.cluster.nodes:
        for image in ("rendezvous:{}", "shard-worker:{}-model", "gateway:{}-model"):
            old, new = (f"llama-swarm/{image.format(tag)}" for tag in (TAG, NEXT_TAG))
            if scene.cluster.on(node, "docker", "images", "--quiet", old).strip():
                scene.cluster.on(node, "docker", "tag", old, new)
    over, answers, asker = threading.Event(), [], ServiceClient(scene)
    asking = [threading.Thread(target=lambda: keep_asking(scene, over, answers, asker)) for _ in range(ASKERS)]
    for thread in asking:
        thread.start()
    try:
        with copy_of_manifests() as folder:
            add_spares(folder)
            add_update(folder)
            apply(scene, rendered(scene, folder / "overlays/local"), waits=True)
        for name in ("statefulset/rendezvous", "deployment/gateway"):
            scene.wait_for(name, UPDATE)
        scene.wait_for_workers(UPDATE)
    finally:
        over.set()
        for thread in asking:
            thread.join(BOUND)
    took, right = time.monotonic() - since, answers.count(scene.answer)
    wait_until(lambda: not before & uids(scene), "no pod is left of those before the update")
    scene.report.check(len(scene.pods()) == len(before), f"an update with spares: all {len(before)} pods are others")
    for wrong in [answer for answer in answers if answer != scene.answer][:3]:
        note(f"instead: {wrong}")
    scene.report.check(
        0 < right == len(answers),
        f"an update with spares: {right} of {len(answers)} questions asked in its {took:.0f} s had the same answer; "
        f"{asker.again} times one was asked again, because a gateway ended that was still in the Service",
    )
    scene.watch_all_again()


def uids(scene):
    return {pod["metadata"]["uid"] for pod in scene.pods().values()}


class ServiceClient:
    """Asks the gateways by their Service, from a node: no way to one pod, which ends with it."""

    def __init__(self, scene):
        self.scene, self.again = scene, 0
        self.address = scene.kubectl("get", "service", "gateway", "--output", "jsonpath={.spec.clusterIP}").strip()
        # Where Kubernetes knows no pause before SIGTERM, a gateway ends before everybody knows that it left.
        self.forgives = minor_version(scene) < 30

    def ask(self, question, max_tokens):
        for _ in range(ATTEMPTS):
            code, said = self._ask(question, max_tokens)
            if not (self.forgives and (code == 0 or "shutting down" in said)):
                break
            self.again += 1
            time.sleep(1)
        if code != 200:
            raise Failure(f"{code}: {said}", ["gateway"])
        return json.loads(said)["choices"][0]["message"]["content"]

    def _ask(self, question, max_tokens):
        """The HTTP status, 0 where there was none, and the body."""
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": max_tokens, "temperature": 0}
        script = (
            'curl -s -m 120 -w "\\n%{http_code}" -H "content-type: application/json" '
            f'-H "authorization: Bearer {self.scene.key}" -d @- http://{self.address}:8080/v1/chat/completions || true'
        )
        told = self.scene.cluster.on(self.scene.cluster.nodes[0], "sh", "-c", script, input=json.dumps(body))
        said, _, code = told.rpartition("\n")
        return int(code or 0), said


def restart_all_while_asking(scene):
    """Answers or refusals, how many shards were missing in each status of the gateway, and seconds."""
    since, over, answers = time.monotonic(), threading.Event(), []
    asking = threading.Thread(target=lambda: keep_asking(scene, over, answers, scene.client))
    asking.start()
    try:
        scene.kubectl("rollout", "restart", *(f"statefulset/{name}" for name in WORKER_SETS))
        scene.wait_for_workers(UPDATE)
    finally:
        over.set()
        asking.join(BOUND)
    took = time.monotonic() - since
    missing = [loaded_missing(seen) for seen in scene.gateway().history if seen.at >= since]
    for worker in scene.all_workers():
        scene.watch(worker)
    scene.wait_whole()
    for wrong in [answer for answer in answers if answer != scene.answer][:3]:
        note(f"instead: {wrong}")
    return answers, missing, took
