"""Who has no key and who has no secret, or another one, stays outside."""

import json
import subprocess

from observing import QUESTION
from running import BOUND, docker, wait_until

MODEL = "/models/model.gguf"
LISTEN = "/ip4/0.0.0.0/udp/4001/quic-v1,/ip4/0.0.0.0/tcp/4001"
SECRET = "/etc/llama-swarm/secret"


def who_has_no_key(scene):
    swarm = scene.swarm
    refused = {key: swarm.post(QUESTION, 1, key=key).status for key in (None, "wrong", swarm.key[:-1])}
    scene.report.check(set(refused.values()) == {401}, f"without a key, and with a wrong one: {set(refused.values())}")
    status = [scene.bin_dir / "llama-swarm", "status", "--addr", f"127.0.0.1:{swarm.grpc_port}"]
    told = subprocess.run(status, capture_output=True, text=True, timeout=BOUND)
    scene.report.check(
        told.returncode == 1 and "--api-key" in told.stderr, f"status over gRPC without one: {told.stderr.strip()}"
    )
    scene.report.check(swarm.ask(QUESTION, 32) == scene.answer, "with the key the same answer as before")


def a_node_without_the_secret(scene):
    """In a container a node listens for others, so it does not even start."""
    command = ["docker", "run", "--rm", *own(scene), f"{image(scene, 'rendezvous')}", "--listen", LISTEN]
    told = subprocess.run(command, capture_output=True, text=True, timeout=BOUND)
    scene.report.check(
        told.returncode == 1 and "--secret-file" in told.stderr, f"without a secret: {told.stderr.strip()[-200:]}"
    )


def who_has_another_secret(scene):
    """The same program with the same model, in the same network, under the cluster's name, for a shard that is served."""
    volume = f"{scene.swarm.project}_other"
    docker("volume", "create", "--label", project(scene), volume)
    new = ("secret", "new", f"{SECRET}/swarm.secret")
    docker("run", "--rm", *own(scene), "--volume", f"{volume}:{SECRET}", image(scene, "llama-swarm"), *new)
    stranger = start_stranger(scene, volume)
    wait_until(lambda: complaints(stranger) > 0, "the stranger complains that it is not admitted", ["rendezvous"])
    seen = own_status(stranger)
    own_peer = seen["node"]
    alone = {replica["worker"] for shard in seen["shards"] for replica in shard["replicas"]} <= {own_peer}
    scene.report.check(alone, "who has another secret sees nobody")
    again = scene.swarm.ask(QUESTION, 32)
    scene.report.check(again == scene.answer, "the same answer as before, without it")
    met = [node for node, watch in scene.observers.inside.items() if has_met(watch, own_peer)]
    scene.report.check(not met, f"nobody has seen it {', '.join(met)}".strip(), met)
    docker("rm", "--force", stranger)


def start_stranger(scene, volume):
    return docker(
        *("run", "--detach", *own(scene), "--network", scene.swarm.network()),
        *("--volume", f"{volume}:{SECRET}:ro", "--env", f"LLAMA_SWARM_SECRET_FILE={SECRET}/swarm.secret"),
        *("--mount", f"type=bind,source={scene.swarm.variables['MODEL_FILE']},target={MODEL},readonly"),
        *(image(scene, "shard-worker"), "--shard-id", "3", "--model", MODEL, "--listen", LISTEN),
        *("--rendezvous", "rendezvous:4001"),
    ).strip()


def complaints(stranger):
    log = subprocess.run(["docker", "logs", stranger], capture_output=True, text=True, timeout=BOUND)
    return (log.stdout + log.stderr).count("--secret-file")


def own_status(stranger):
    command = ("/usr/local/bin/llama-swarm", "status", "--json", "--addr", "127.0.0.1:50051")
    # Exit code 3: its swarm is not ready.
    told = subprocess.run(["docker", "exec", stranger, *command], capture_output=True, text=True, timeout=BOUND)
    return json.loads(told.stdout)


def has_met(watch, peer):
    replicas = (seen.replicas(shard["shard_id"]) for seen in watch.history for shard in seen.status["shards"])
    return any(peer in some for some in replicas)


def image(scene, service):
    return f"{scene.swarm.images.prefix}/{service}:{scene.swarm.images.tag}"


def project(scene):
    return f"com.docker.compose.project={scene.swarm.project}"


def own(scene):
    """So that it is removed with the rest."""
    return ("--label", project(scene))
