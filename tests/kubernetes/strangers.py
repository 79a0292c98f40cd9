"""A pod that looks like a worker and has another secret stays outside: a name and labels are no membership."""

import json

from observing import QUESTION, SHARDS, Watch
from running import Failure, wait_until
from scene import GRPC_PORT, WORKERS
from starting import command, create_secret

POD = "stranger"
OTHER = "other-secret"


def who_has_another_secret(scene):
    """It has a worker's labels, so network policies let it through, and the same model and name of the swarm."""
    create_secret(scene, OTHER, "swarm.secret", command(scene, "secret", "new", "-"))
    scene.kubectl("apply", "--filename", "-", input=json.dumps(stranger(scene)))
    wait_until(lambda: "--secret-file" in log(scene), "the stranger complains that it is not admitted", [POD])
    enter, _, _ = scene.asking_inside(POD)
    watch = Watch.inside(POD, enter, GRPC_PORT["shard"])
    peer = watch.wait(lambda seen: True, "any status").peer
    again = scene.client.ask(QUESTION, 32)
    scene.report.check(again == scene.answer, "beside a pod with another secret: the same answer")
    scene.report.check(all(everybody(seen) <= {peer} for seen in watch.history), "who has another secret sees nobody")
    met = [pod for pod, other in scene.watches.items() if any(peer in everybody(seen) for seen in other.history)]
    scene.report.check(not met, f"nobody has seen it {', '.join(met)}".strip(), met)
    watch.stop()
    scene.kubectl("delete", "pod", POD, "--grace-period", "0", "--force")
    scene.kubectl("delete", "secret", OTHER)


def log(scene):
    try:
        return scene.kubectl("logs", POD)
    except Failure:
        # Its container is not there yet.
        return ""


def everybody(seen):
    return {worker for shard in range(SHARDS) for worker in seen.replicas(shard)}


def stranger(scene):
    worker = scene.pods()[WORKERS[3]]
    settings = worker["spec"]["containers"][0]
    labels = {k: v for k, v in worker["metadata"]["labels"].items() if k.startswith("app.kubernetes.io/")}
    same = ("RENDEZVOUS_SERVICE", "LLAMA_SWARM_RENDEZVOUS", "LLAMA_SWARM_GRPC_LISTEN", "LLAMA_SWARM_KV_MEMORY")
    variables = [v for v in settings["env"] if v["name"] in same]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        # Another name than the set's pods have: it must not take it for one of its own.
        "metadata": {"name": POD, "labels": labels | {"app.kubernetes.io/name": POD}},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": worker["spec"]["securityContext"],
            "containers": [
                {
                    "name": POD,
                    "image": settings["image"],
                    "imagePullPolicy": "Never",
                    "envFrom": settings["envFrom"],
                    "env": [{"name": "LLAMA_SWARM_SHARD_ID", "value": "3"}, *variables],
                    "securityContext": settings["securityContext"],
                    "volumeMounts": [
                        {"name": "secret", "mountPath": "/etc/llama-swarm/secret", "readOnly": True},
                        {"name": "state", "mountPath": "/var/lib/llama-swarm"},
                        {"name": "models", "mountPath": "/var/cache/llama-swarm"},
                    ],
                }
            ],
            "volumes": [
                {"name": "secret", "secret": {"secretName": OTHER, "defaultMode": 0o440}},
                {"name": "state", "emptyDir": {}},
                {"name": "models", "emptyDir": {}},
            ],
        },
    }
