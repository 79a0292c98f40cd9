"""Network policies: only what is drawn passes."""

from concurrent.futures import ThreadPoolExecutor

from policies import Policies
from scene import BOUND, NAMESPACE, PROBER


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
    doors = [("gateway", "8080"), ("gateway", "50050"), ("gateway", "50053"), ("gateway", "4001")]
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
    pods = scene.pods()
    addresses = {
        kind: next(pod["status"]["podIP"] for name, pod in pods.items() if name.startswith(kind))
        for kind in ("gateway", "rendezvous", "shard-worker")
    }

    def is_open(namespace, pod, port):
        knock = f"timeout 3 bash -c '</dev/tcp/{addresses[pod]}/{port}' 2> /dev/null && echo open || echo closed"
        return (
            scene.cluster.kubectl("--namespace", namespace, "exec", "prober", "--", "bash", "-c", knock).strip()
            == "open"
        )

    # Most of the time is waiting for what is closed.
    with ThreadPoolExecutor(4) as several:
        return dict(zip(ways, several.map(lambda way: is_open(*way), ways), strict=True))
