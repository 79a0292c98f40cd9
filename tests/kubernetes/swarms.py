"""Swarms that get their model from `share`: production's overlay, the chart, and k8s/base under other names."""

import time

from answers import delete_by_force, go_on, serving
from observing import LONG_ANSWER, LONG_QUESTION, QUESTION, text_of
from overlays import apply, chart_values, copy_of_manifests, from_chart, prefixed_base, rendered, small_production
from running import note, wait_until
from scene import come_back, is_ready, minor_version
from starting import TOKENS, answers_as_one_process, make_secrets

FEW = 4


def production_runs(scene):
    """k8s/overlays/production on three nodes: two workers of each shard, and two gateways by the autoscaler."""
    with copy_of_manifests() as folder:
        objects = rendered(scene, small_production(folder, scene.namespace, scene.tag))
    begin(scene, objects)
    wait_until(lambda: sum(is_ready(scene, pod) for pod in gateways(scene)) == 2, "two gateways are ready")
    pods = scene.pods()
    pairs = [{pods[worker]["spec"]["nodeName"] for worker in scene.workers(shard)} for shard in range(scene.shards)]
    scene.report.check(all(len(nodes) == 2 for nodes in pairs), "no two workers of a shard are on one node")
    the_swarm_answers(scene)
    scene.long_answer = text_of(list(scene.client.stream(LONG_QUESTION, LONG_ANSWER)))


def the_chart_runs(scene):
    """k8s/chart with four shards, as a release called blue."""
    begin(scene, from_chart(chart_values(FEW, scene.tag), "blue", scene.namespace))
    the_swarm_answers(scene)


def a_prefixed_swarm_runs(scene):
    """k8s/base with namePrefix and four shards."""
    with copy_of_manifests() as folder:
        objects = rendered(scene, prefixed_base(folder, scene.namespace, scene.prefix, FEW, scene.tag))
    begin(scene, objects)
    the_swarm_answers(scene)


def begin(scene, objects):
    since = time.monotonic()
    for difference in apply(scene, objects, waits=True):
        note(f"Kubernetes 1.{minor_version(scene)}: {difference}")
    make_secrets(scene)
    scene.wait_for(f"statefulset/{scene.prefix}share")
    shared = time.monotonic() - since
    scene.wait_for_workers()
    scene.wait_for(f"deployment/{scene.prefix}gateway")
    scene.report.check(
        True,
        f"{scene.namespace}: ready {time.monotonic() - since:.1f} s after kubectl apply, share after {shared:.1f} s",
    )


def the_swarm_answers(scene):
    scene.watch_all_again()
    count = scene.shards * scene.replicas
    scene.report.check(
        len(set.union(*scene.peers)) == count,
        f"{len(scene.watches)} pods see {scene.shards} shards, {count} LOADED workers in all",
    )
    answers_as_one_process(scene)
    where_the_model_came_from(scene)


def where_the_model_came_from(scene):
    told = {pod: scene.metrics(pod) for pod in scene.watches}

    def sum_of(name, *services):
        return sum(of[name] for pod, of in told.items() if name in of and scene.service_of(pod) in services) / 1e6

    fetching = [pod for pod in told if scene.service_of(pod) in ("shard", "gateway")]
    without = [pod for pod in fetching if not told[pod].get("llama_swarm_pieces_received_bytes_total")]
    scene.report.check(
        not without, f"all {len(fetching)} workers and gateways fetched pieces {', '.join(without)}".strip()
    )
    given, passed = (sum_of("llama_swarm_pieces_sent_bytes_total", *who) for who in (("share",), ("shard", "gateway")))
    scene.report.check(given > 0, f"share gave {given:.0f} MB, workers and gateways {passed:.0f} MB to each other")
    from_hub = sum_of("llama_swarm_origin_received_bytes_total", "share", "shard", "gateway")
    scene.report.check(from_hub == 0, f"{from_hub:.0f} MB came from a hub")


def gateways(scene):
    return [pod for pod in scene.pods() if scene.service_of(pod) == "gateway"]


def a_deleted_worker_fetches_again(scene):
    """Under answers, which go on with the spare; the pod in its place has nothing and fetches its part of the model."""
    pod = go_on(scene, lambda: delete_by_force(scene, serving(scene, 3)), "which has a spare")
    come_back(scene, pod)
    fetched = scene.metrics(pod).get("llama_swarm_pieces_received_bytes_total", 0)
    scene.report.check(fetched > 0, f"the new {pod} fetched {fetched / 1e6:.0f} MB from the swarm")


def share_goes(scene):
    """What runs goes on without it; it comes back as the same peer, with its file."""
    peer = scene.peer_of("share-0")
    scene.kubectl("delete", "pod", "share-0", "--wait=false")
    answer = scene.client.ask(QUESTION, TOKENS)
    scene.report.check(answer == scene.answer, "share deleted: questions are answered meanwhile")
    come_back(scene, "share-0")
    scene.report.check(scene.watches["share-0"].last().peer == peer, "share is back as the same peer")
