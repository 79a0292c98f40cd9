"""The manifests are applied as the docs say, and the swarm is there."""

import json
import time

import yaml

from cluster import ROOT
from observing import LONG_ANSWER, LONG_QUESTION, QUESTION, SHARDS, longest_pause, text_of
from older import for_server
from running import docker, note
from scene import BOUND, WORKERS, PortForward, minor_version, restart_counts


def other_overlays_are_accepted(scene):
    """By the API server, which makes none of it but the namespace. What only an operator knows is left out."""
    scene.cluster.kubectl("apply", "--filename", ROOT / "k8s/namespace.yaml")
    for overlay in ("production", "gpu"):
        objects = rendered(scene, ROOT / "k8s" / "overlays" / overlay)
        for_server(objects, minor_version(scene))
        known = [item for item in objects if item["kind"] not in ("PodMonitor", "PrometheusRule")]
        told = scene.kubectl("apply", "--dry-run=server", "--filename", "-", input=listed(known))
        scene.report.check(
            len(told.splitlines()) == len(known), f"the API server accepts the {len(known)} objects of {overlay}"
        )


def everything_starts(scene):
    since = time.monotonic()
    for difference in apply(scene, ROOT / "k8s"):
        note(f"Kubernetes 1.{minor_version(scene)}: {difference}")
    create_secret(scene, "swarm-secret", "swarm.secret", command(scene, "secret", "new", "-"))
    scene.key, line = command(scene, "key", "new", "tests").splitlines()
    create_secret(scene, "gateway-keys", "api.keys", line)
    scene.wait_for_workers()
    scene.kubectl("rollout", "status", "deployment/gateway", "--timeout=300s", bound=BOUND)
    took = time.monotonic() - since
    pods = scene.pods()
    nodes = {pod["spec"]["nodeName"] for name, pod in pods.items() if name in WORKERS}
    restarts = sum(restart_counts(scene).values())
    scene.report.check(len(pods) == 10, f"ten pods, and the gateway is ready {took:.1f} s after kubectl apply")
    scene.report.check(restarts == 0, f"{restarts} containers were restarted on the way")
    scene.report.check(len(nodes) == len(scene.cluster.nodes), f"the workers are spread over {len(nodes)} nodes")


def command(scene, *arguments):
    """The operator's command, in its image."""
    return docker("run", "--rm", f"llama-swarm/llama-swarm:{scene.tag}", *arguments)


def create_secret(scene, name, file, text):
    scene.kubectl("create", "secret", "generic", name, f"--from-file={file}=/dev/stdin", input=text)


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


def everybody_sees_all(scene):
    scene.client = PortForward(scene.cluster, scene.key)
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
