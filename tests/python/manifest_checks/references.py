"""Everything that is named exists."""

from itertools import product

from manifest_checks.objects import selects

# Made by hand or by others, and told of in docs/kubernetes.md.
FOREIGN_SECRETS = {"swarm-secret", "gateway-keys", "hub-token"}


def reference_faults(overlay):
    """Everything that is named exists, and every workload has what belongs to it."""
    for workload in overlay.workloads:
        for source in workload.container.get("envFrom", []):
            if not overlay.named("ConfigMap", source["configMapRef"]["name"]):
                yield f"{workload}: no ConfigMap {source['configMapRef']['name']}"
        secrets = {v["secret"]["secretName"] for v in workload.pod.get("volumes", []) if "secret" in v}
        secrets |= {
            v["valueFrom"]["secretKeyRef"]["name"]
            for v in workload.container["env"]
            if "secretKeyRef" in v.get("valueFrom", {})
        }
        for name in secrets - FOREIGN_SECRETS:
            yield f"{workload}: nobody makes the secret {name}"
        if not overlay.named("ServiceAccount", workload.pod.get("serviceAccountName")):
            yield f"{workload}: no such service account"
        if not selects(workload.spec["selector"], workload.labels):
            yield f"{workload}: does not select its own pods"
        if workload.kind == "StatefulSet" and not overlay.named("Service", workload.spec["serviceName"]):
            yield f"{workload}: no Service {workload.spec['serviceName']}"
        if sum(selects(b["spec"]["selector"], workload.labels) for b in overlay.of("PodDisruptionBudget")) != 1:
            yield f"{workload}: not under exactly one disruption budget"
        scaled = any(
            h["spec"]["scaleTargetRef"]["name"] == workload.name for h in overlay.of("HorizontalPodAutoscaler")
        )
        if scaled == ("replicas" in workload.spec):
            yield f"{workload}: either replicas or an autoscaler"
        yield from name_faults(overlay, workload)
    # Who takes an overlay away must not take the secrets and all claims with it.
    if overlay.of("Namespace"):
        yield f"{overlay.name}: a Namespace, which `kubectl delete` would take with all that is in it"
    for first, second in product(overlay.workloads, overlay.workloads):
        if first is not second and selects(first.spec["selector"], second.labels):
            yield f"{first} selects the pods of {second.name}"
    yield from service_faults(overlay)


def name_faults(overlay, workload):
    """Names in variables are those of Services, whatever prefix they have."""
    entry = workload.environment.get("LLAMA_SWARM_RENDEZVOUS")
    if (entry is None) != (workload.service == "rendezvous"):
        yield f"{workload}: enters by {entry}"
    if entry and not overlay.named("Service", entry.partition(":")[0]):
        yield f"{workload}: enters by {entry}, which is no Service"
    if workload.service == "gateway":
        name = next(s["metadata"]["name"] for s in overlay.of("Service") if "http" in ports_of(s))
        space = overlay.named("Service", name)["metadata"]["namespace"]
        missing = {name, f"{name}.{space}", f"{name}.{space}.svc", f"{name}.{space}.svc.cluster.local"}
        if missing := missing - set(workload.environment["LLAMA_SWARM_ALLOWED_HOST"].split(",")):
            yield f"{workload}: does not allow to be called {sorted(missing)}"


def ports_of(service):
    return {port["name"] for port in service["spec"]["ports"]}


def service_faults(overlay):
    for service in overlay.of("Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        pods = [w for w in overlay.workloads if selects({"matchLabels": spec["selector"]}, w.labels)]
        if not pods:
            yield f"{overlay.name}: Service {name} selects no pod"
        for port, pod in product(spec["ports"], pods):
            target = [p for p in pod.container["ports"] if p["name"] == port["targetPort"]]
            if [(p["containerPort"], p["protocol"]) for p in target] != [(port["port"], port["protocol"])]:
                yield f"{overlay.name}: Service {name} port {port['name']} does not lead to {pod.name}"
    backends = [
        path["backend"]["service"]
        for i in overlay.of("Ingress")
        for rule in i["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    for backend in backends:
        service = overlay.named("Service", backend["name"])
        if not service or backend["port"].get("name") not in {p["name"] for p in service["spec"]["ports"]}:
            yield f"{overlay.name}: Ingress to {backend}, which is not there"
    for route in overlay.of("HTTPRoute") + overlay.of("GRPCRoute"):
        for backend in (b for rule in route["spec"]["rules"] for b in rule["backendRefs"]):
            service = overlay.named("Service", backend["name"])
            wanted = "http" if route["kind"] == "HTTPRoute" else "grpc"
            ports = {p["name"]: p["port"] for p in service["spec"]["ports"]} if service else {}
            if ports.get(wanted) != backend["port"]:
                yield f"{overlay.name}: {route['kind']} to {backend}, which is not there"
    yield from monitor_faults(overlay)


def monitor_faults(overlay):
    """One monitor finds each pod, at the port that its annotation names too."""
    for workload in overlay.workloads if overlay.of("PodMonitor") else []:
        scraped = int(workload.spec["template"]["metadata"]["annotations"]["prometheus.io/port"])
        name = next((p["name"] for p in workload.container["ports"] if p["containerPort"] == scraped), None)
        found = [m for m in overlay.of("PodMonitor") if selects(m["spec"]["selector"], workload.labels)]
        endpoints = [endpoint["port"] for monitor in found for endpoint in monitor["spec"]["podMetricsEndpoints"]]
        if endpoints != [name]:
            yield f"{workload}: scraped at {endpoints}, its metrics are at {name}"
