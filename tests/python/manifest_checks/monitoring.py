"""Rules, dashboard and monitors: copies of what docs/ has, with the labels that operators look for."""

import json
import re

ALERTS, DASHBOARD = "docs/alerts.yaml", "docs/grafana-dashboard.json"
RULE = """\
# A copy of docs/alerts.yaml for the Prometheus operator, written by tests/python/manifests.py --write-copies.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: llama-swarm
  labels:
    # By which kube-prometheus-stack chooses: the name of its release.
    release: kube-prometheus-stack
spec:
"""
# What a reader of the dashboard chooses by.
VARIABLES = ("namespace", "swarm", "cluster", "model", "pod", "instance")
# Of these, what queries are of: by their model nodes are chosen, and series do not have it.
LABELS = tuple(name for name in VARIABLES if name != "model")


def copies(root):
    """Path → text of the files that are made from docs/: kustomize and Helm read nothing outside of their folders."""
    alerts, dashboard = ((root / path).read_text() for path in (ALERTS, DASHBOARD))
    groups = alerts[alerts.index("groups:") :]
    indented = "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))
    return {
        "k8s/components/monitoring/prometheus-rule.yaml": RULE + indented,
        "k8s/components/monitoring/grafana-dashboard.json": dashboard,
        "k8s/chart/files/alerts.yaml": groups,
        "k8s/chart/files/grafana-dashboard.json": dashboard,
    }


def write_copies(root):
    for path, text in copies(root).items():
        (root / path).write_text(text)


def copy_faults(root):
    for path, text in copies(root).items():
        file = root / path
        if not file.exists() or file.read_text() != text:
            yield f"{path} is not what {ALERTS} or {DASHBOARD} says: manifests.py --write-copies"


def dashboard_faults(root):
    """Each query is of what the reader has chosen."""
    dashboard = json.loads((root / DASHBOARD).read_text())
    wanted = "{" + ",".join(f'{name}=~"${name}"' for name in LABELS)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for series in re.findall(r"(?:llama_swarm|gen_ai|process)_\w+(.{0,120})", target["expr"]):
                if not series.startswith(wanted):
                    yield f"panel {panel['title']}: {target['expr']} does not heed {LABELS}"
    named = [variable["name"] for variable in dashboard["templating"]["list"]]
    if named != ["datasource", *VARIABLES]:
        yield f"variables {named}"


def monitoring_faults(overlay, groups, dashboard):
    """Where pods are monitored, the alerts and the dashboard are there too, and operators find all three."""
    monitors, rules = overlay.of("PodMonitor"), overlay.of("PrometheusRule")
    boards = [o for o in overlay.of("ConfigMap") if o["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    if not monitors:
        if rules or boards:
            yield f"{overlay.name}: alerts or a dashboard, but no monitors"
        return
    for o in monitors + rules:
        if not o["metadata"]["labels"].get("release"):
            yield f"{overlay.name}: {o['kind']} {o['metadata']['name']} is not chosen by kube-prometheus-stack"
    if [rule["spec"]["groups"] for rule in rules] != [groups]:
        yield f"{overlay.name}: its alerts are not those of {ALERTS}"
    if [[json.loads(text) for text in board["data"].values()] for board in boards] != [[dashboard]]:
        yield f"{overlay.name}: its dashboard is not {DASHBOARD}"
