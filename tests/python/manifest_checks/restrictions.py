"""What pods may do: as little as possible."""

from manifest_checks.programs import IMAGE_USER

# Volumes that the restricted Pod Security Standard allows.
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def restricted_faults(workload):
    """The restricted Pod Security Standard, and what we want besides: a read-only root, no token, bounded memory."""
    pod, containers = workload.pod, workload.pod["containers"] + workload.pod.get("initContainers", [])
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= RESTRICTED_VOLUMES:
            yield f"volume {volume}"
    if pod.get("automountServiceAccountToken") is not False or pod.get("serviceAccountName", "default") == "default":
        yield "a service account's token"
    for container in containers:
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        wanted = {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": int(IMAGE_USER.split(":")[0]),
        }
        given = {"privileged": False, **context}
        yield from (f"{field} is {given.get(field)}" for field, value in wanted.items() if given.get(field) != value)
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield f"capabilities {context.get('capabilities')}"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"seccompProfile {context.get('seccompProfile')}"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield "hostPort"
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            yield "requests for cpu and memory and a limit for memory are wanted"
