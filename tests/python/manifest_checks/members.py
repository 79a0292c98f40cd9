"""Who is let in: nodes by the swarm's secret, clients by keys; and which ports the world outside of a pod reaches."""

from pathlib import Path

SECRET_FILE = "/etc/llama-swarm/secret/swarm.secret"


def membership_faults(workload, program):
    """Each node has the secret, as a file that it cannot change; a gateway has keys, or says that it has none."""
    environment = workload.environment
    if program.value(environment, "--secret-file") != SECRET_FILE:
        yield f"the swarm's secret is {program.value(environment, '--secret-file')}, not {SECRET_FILE}"
    else:
        yield from mount_faults(workload, SECRET_FILE)
    if is_true(program.value(environment, "--open-swarm")):
        yield "an open swarm"
    if "--api-keys-file" not in program.flags:
        return
    keys, is_open = program.value(environment, "--api-keys-file"), is_true(program.value(environment, "--open-gateway"))
    if bool(keys) == is_open:
        yield "a gateway has either keys or says that it is open"
    if keys:
        yield from mount_faults(workload, keys)


def mount_faults(workload, file):
    folder = str(Path(file).parent)
    mounts = [m for m in workload.container["volumeMounts"] if m["mountPath"] == folder]
    secrets = {v["name"]: v["secret"] for v in workload.pod.get("volumes", []) if "secret" in v}
    if not mounts or not mounts[0].get("readOnly") or "subPath" in mounts[0]:
        # A part of a volume does not follow when the Secret changes.
        yield f"{folder} is not mounted whole and read-only"
    elif mounts[0]["name"] not in secrets:
        yield f"{folder} is no Secret"
    elif secrets[mounts[0]["name"]].get("optional") or secrets[mounts[0]["name"]].get("defaultMode") != 0o440:
        yield f"the Secret in {folder} may be missing, or is not for the pod's group alone"


def listen_faults(environment, program):
    """A container's loopback is reached by nobody: not by its clients, and not by who scrapes it."""
    for flag in ("--http-listen", "--grpc-listen", "--metrics-listen"):
        address = program.value(environment, flag) if flag in program.flags else None
        if address and address.rpartition(":")[0] not in ("0.0.0.0", "[::]"):
            yield f"{flag} is {address}, which nobody reaches from outside"


def is_true(text):
    return str(text or "").lower() not in ("", "0", "false", "no", "off", "n", "f")
