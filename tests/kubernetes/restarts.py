"""Workers are evicted and restarted, without spares and with them; an update changes every pod."""

import json
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from cluster import ROOT, Failure
from observing import QUESTION, SHARDS
from running import note, wait_until
from scene import (
    BOUND,
    SPARES,
    WORKER_SETS,
    WORKERS,
    PortForward,
    come_back,
    evict,
    keep_asking,
    loaded_missing,
    minor_version,
)
from starting import apply

# In the local overlay, and what they become.
TAG, NEXT_TAG = "0.1.0", "0.1.0-next"
# An update is a minute or so for each of the two replicas; all shards go at the same time.
UPDATE = 600.0


def evictions_wait_for_each_other(scene):
    first, second = WORKERS[0], WORKERS[1]
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
    refused = sum("swarm_not_ready" in answer for answer in answers)
    right = answers.count(scene.answer)
    scene.report.check(
        right > 0 and right + refused == len(answers),
        f"rolling restart: of {len(answers)} questions asked in its {took:.0f} s {right} had the same answer, "
        f"{refused} were refused as swarm_not_ready",
    )


def spares_take_over(scene):
    """A second worker for every shard: a rolling restart of all workers is not noticed by who asks."""
    with changed_manifests() as folder:
        apply(scene, folder)
    scene.wait_for_workers()
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


def an_update_with_spares(scene):
    """Other images and one more setting: every pod is made again, while somebody asks the gateway's Service."""
    before, since = uids(scene), time.monotonic()
    for node in scene.cluster.nodes:
        for image in ("rendezvous:{}", "shard-worker:{}-model", "gateway:{}-model"):
            old, new = (f"llama-swarm/{image.format(tag)}" for tag in (TAG, NEXT_TAG))
            if scene.cluster.on(node, "docker", "images", "--quiet", old).strip():
                scene.cluster.on(node, "docker", "tag", old, new)
    over, answers, asker = threading.Event(), [], ServiceClient(scene)
    asking = threading.Thread(target=lambda: keep_asking(scene, over, answers, asker))
    asking.start()
    try:
        with changed_manifests(update=True) as folder:
            apply(scene, folder)
        for name in ("statefulset/rendezvous", "deployment/gateway"):
            scene.kubectl("rollout", "status", name, f"--timeout={UPDATE:.0f}s", bound=UPDATE + 20)
        scene.wait_for_workers(UPDATE)
    finally:
        over.set()
        asking.join(BOUND)
    took, right = time.monotonic() - since, answers.count(scene.answer)
    wait_until(lambda: not before & uids(scene), "no pod is left of those before the update")
    scene.report.check(len(scene.pods()) == len(before), f"an update with spares: all {len(before)} pods are others")
    for wrong in [answer for answer in answers if answer != scene.answer][:3]:
        note(f"instead: {wrong}")
    scene.report.check(
        0 < right == len(answers),
        f"an update with spares: {right} of {len(answers)} questions asked in its {took:.0f} s had the same answer; "
        f"{asker.again} were asked twice, because a gateway ended that was still in the Service",
    )
    watch_all_again(scene)


def uids(scene):
    return {pod["metadata"]["uid"] for pod in scene.pods().values()}


def watch_all_again(scene):
    for watch in scene.watches.values():
        watch.stop()
    scene.watches.clear()
    scene.client.close()
    scene.client = PortForward(scene.cluster, scene.key)
    for pod in scene.pods():
        scene.watch(pod)
    scene.wait_whole()


@contextmanager
def changed_manifests(update=False):
    """A copy of k8s/ whose local overlay has spares, and other tags and one more setting for an update."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "k8s", folder, dirs_exist_ok=True)
        overlay = folder / "overlays/local/kustomization.yaml"
        overlay.write_text(
            overlay.read_text().replace("components:\n", "components:\n  - ../../components/spare-replicas\n")
        )
        if update:
            for file in (overlay, folder / "base/kustomization.yaml"):
                file.write_text(file.read_text().replace(f"newTag: {TAG}", f"newTag: {NEXT_TAG}"))
            settings = folder / "base/swarm.env"
            settings.write_text(settings.read_text() + "OTEL_BSP_SCHEDULE_DELAY=4000\n")
        yield folder


class ServiceClient:
    """Asks the gateways by their Service, from a node: no way to one pod, which ends with it."""

    def __init__(self, scene):
        self.scene, self.again = scene, 0
        self.address = scene.kubectl("get", "service", "gateway", "--output", "jsonpath={.spec.clusterIP}").strip()
        # Where Kubernetes knows no pause before SIGTERM, a gateway ends before everybody knows that it left.
        self.forgives = minor_version(scene) < 30

    def ask(self, question, max_tokens):
        code, said = self._ask(question, max_tokens)
        if code != 200 and self.forgives and "swarm_not_ready" not in said:
            self.again += 1
            time.sleep(1)
            code, said = self._ask(question, max_tokens)
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
    scene.kubectl("rollout", "restart", *(f"statefulset/{name}" for name in WORKER_SETS))
    asking.start()
    try:
        scene.wait_for_workers(UPDATE)
    finally:
        over.set()
        asking.join(BOUND)
    took = time.monotonic() - since
    gateway = next(watch for pod, watch in scene.watches.items() if pod.startswith("gateway"))
    missing = [loaded_missing(seen) for seen in gateway.history if seen.at >= since]
    for pod in (WORKERS + SPARES) if len(scene.peers[SHARDS - 1]) == 2 else WORKERS:
        scene.watch(pod)
    scene.wait_whole()
    for wrong in [answer for answer in answers if answer != scene.answer and "swarm_not_ready" not in answer][:3]:
        note(f"instead: {wrong}")
    return answers, missing, took
