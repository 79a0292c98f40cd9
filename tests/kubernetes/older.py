"""Says the manifests in the words of an older Kubernetes, and tells what had to be said otherwise.

For clusters below the version that docs/kubernetes.md asks for: objects change their version, probes by gRPC become the
same question asked by the image's own client, and what the server does not know is left out.
"""

HEALTH_CLIENT = "/usr/local/bin/llama-swarm"


def for_server(objects, minor, waits=False):
    """`objects` for a server 1.`minor`; they are changed in place. Gives the differences, each once.

    `waits`: a server that does not know minReadySeconds is to wait as long all the same, by the readiness probes' delay,
    which makes each start of a worker slower.
    """
    told = set()
    for item in objects:
        for change in (_versions, _probes, _pauses, _claims, _affinity):
            told |= set(change(item, minor))
        told |= set(_updates(item, minor, waits))
    return sorted(told)


def _versions(item, minor):
    for kind, new, old, since in (
        ("PodDisruptionBudget", "policy/v1", "policy/v1beta1", 21),
        ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v2beta2", 23),
    ):
        if item["kind"] == kind and item["apiVersion"] == new and minor < since:
            item["apiVersion"] = old
            yield f"{kind} is {old}"


def _pod(item):
    return item.get("spec", {}).get("template", {}).get("spec", {})


def _probes(item, minor):
    if minor >= 24:
        return
    for container in _pod(item).get("containers", []):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if asked := container.get(name, {}).pop("grpc", None):
                command = [HEALTH_CLIENT, "health", "--addr", f"127.0.0.1:{asked['port']}"]
                if "service" in asked:
                    command += ["--service", asked["service"]]
                container[name]["exec"] = {"command": command}
                yield "probes by gRPC are asked by llama-swarm health"


def _pauses(item, minor):
    for container in _pod(item).get("containers", []):
        if minor < 30 and "sleep" in container.get("lifecycle", {}).get("preStop", {}):
            del container["lifecycle"]
            yield "no pause before SIGTERM"


def _claims(item, minor):
    if minor < 27 and item.get("spec", {}).pop("persistentVolumeClaimRetentionPolicy", None):
        yield "claims have no retention policy (kept is what they are without it)"


def _updates(item, minor, waits):
    if item["kind"] != "StatefulSet" or minor >= 25 or not (seconds := item["spec"].pop("minReadySeconds", None)):
        return
    if waits:
        for container in _pod(item)["containers"]:
            container["readinessProbe"]["initialDelaySeconds"] = seconds
        yield f"between two pods of a rolling update their readiness probes wait {seconds} s"
    else:
        yield "a rolling update does not wait between two pods"


def _affinity(item, minor):
    pod, labels = _pod(item), item.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = pod.get("affinity", {}).get(kind, {})
        terms = rules.get("requiredDuringSchedulingIgnoredDuringExecution", [])
        weighted = rules.get("preferredDuringSchedulingIgnoredDuringExecution", [])
        for term in [*terms, *(each["podAffinityTerm"] for each in weighted)]:
            if minor < 31 and (keys := term.pop("matchLabelKeys", None)):
                # What a newer server makes of it when the pod comes. A label that pods get later cannot be said here.
                own = {key: labels[key] for key in keys if key in labels}
                term["labelSelector"]["matchLabels"] = term["labelSelector"]["matchLabels"] | own
                yield "affinity names each set's shard" if own else "affinity does not look at the ordinals of pods"
    for spread in pod.get("topologySpreadConstraints", []):
        if minor < 26 and spread.pop("nodeTaintsPolicy", None):
            yield "spreading counts tainted nodes"
