"""Workers are evicted and restarted one after the other, without spares and with them."""

import shutil
import tempfile
import threading
import time
from pathlib import Path

from cluster import ROOT, Failure
from running import note
from scene import BOUND, SPARES, WORKERS, come_back, evict, keep_asking, loaded_missing, minor_version
from starting import apply


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
