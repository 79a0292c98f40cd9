"""The manifests are applied as the docs say, and the swarm is there."""

import time

from cluster import ROOT
from observing import LONG_ANSWER, LONG_QUESTION, QUESTION, SHARDS, longest_pause, text_of
from overlays import ALL_OF_THE_CHART, accepted, apply, from_chart, listed, rendered
from running import docker, note, run, wait_until
from scene import BOUND, WORKERS, minor_version, restart_counts

TOKENS = 32


def find_reference(program):
    """What the model answers when one process has all of it; the number of shards changes no answer."""
    alone = ("up", "--total-shards", "1", "--threads", "2", "--prompt", QUESTION, "--max-tokens", TOKENS)
    return run(program, *alone, bound=BOUND).strip()


def other_overlays_are_accepted(scene):
    """By the API server, which makes none of it but the namespace."""
    for overlay in ("local", "production", "gpu"):
        accepted(scene, overlay, rendered(scene, ROOT / "k8s/overlays" / overlay))
    accepted(scene, "the chart, as it comes", from_chart({}, "demo", scene.namespace))
    accepted(scene, "the chart with all it can do", from_chart(ALL_OF_THE_CHART, "demo", scene.namespace))


def the_local_overlay_runs(scene):
    """Ten pods, and each sees all."""
    everything_starts(scene)
    everybody_sees_all(scene)
    the_model_answers(scene)


def everything_starts(scene):
    since = time.monotonic()
    for difference in apply(scene, rendered(scene, ROOT / "k8s/overlays/local")):
        note(f"Kubernetes 1.{minor_version(scene)}: {difference}")
    make_secrets(scene)
    scene.wait_for_workers()
    scene.wait_for("deployment/gateway")
    took = time.monotonic() - since
    pods = scene.pods()
    nodes = {pod["spec"]["nodeName"] for name, pod in pods.items() if name in WORKERS}
    restarts = sum(restart_counts(scene).values())
    scene.report.check(len(pods) == 10, f"ten pods, and the gateway is ready {took:.1f} s after kubectl apply")
    scene.report.check(restarts == 0, f"{restarts} containers were restarted on the way")
    scene.report.check(len(nodes) == len(scene.cluster.nodes), f"the workers are spread over {len(nodes)} nodes")


def make_secrets(scene):
    """By hand, as docs/kubernetes.md says: a secret that admits nodes, and a client's key."""
    create_secret(scene, "swarm-secret", "swarm.secret", command(scene, "secret", "new", "-"))
    scene.key, line = command(scene, "key", "new", "tests").splitlines()
    create_secret(scene, "gateway-keys", "api.keys", line)


def command(scene, *arguments):
    """The operator's command, in its image."""
    return docker("run", "--rm", f"llama-swarm/llama-swarm:{scene.tag}", *arguments)


def create_secret(scene, name, file, text):
    scene.kubectl("create", "secret", "generic", name, f"--from-file={file}=/dev/stdin", input=text)


def everybody_sees_all(scene):
    scene.watch_all_again()
    scene.report.check(
        len(set.union(*scene.peers)) == SHARDS, f"{len(scene.watches)} pods see 8 shards, one LOADED worker each"
    )


def the_model_answers(scene):
    answers_as_one_process(scene)
    pieces = list(scene.client.stream(LONG_QUESTION, LONG_ANSWER))
    scene.long_answer = text_of(pieces)
    note(f"undisturbed: {len(pieces)} pieces, longest pause {longest_pause(pieces):.2f} s")


def answers_as_one_process(scene):
    scene.answer = scene.client.ask(QUESTION, TOKENS)
    scene.report.check("Paris" in scene.answer, f"{QUESTION} {scene.answer!r}")
    same = scene.answer.strip() == scene.reference
    beside = "" if same else f": {scene.reference!r}"
    scene.report.check(same, f"{scene.shards} shards answer as one process with all of the model does{beside}")


def it_is_taken_away(scene):
    """`kubectl delete` of what was applied leaves the namespace, the Secrets and the claims."""
    scene.look_away()
    since = time.monotonic()
    scene.kubectl("delete", "--filename", "-", f"--timeout={BOUND:.0f}s", input=listed(scene.applied), bound=BOUND + 20)
    wait_until(lambda: not scene.pods(), "no pod is left", bound=BOUND, poll=1)
    took = time.monotonic() - since
    secrets, claims = (scene.kubectl("get", kind, "--output", "name").split() for kind in ("secrets", "pvc"))
    kept = {"secret/swarm-secret", "secret/gateway-keys"} <= set(secrets)
    scene.report.check(
        kept and bool(claims),
        f"deleted: no pod is left after {took:.0f} s; both Secrets and {len(claims)} claims are kept",
    )
