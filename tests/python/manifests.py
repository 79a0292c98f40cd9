"""Holds the Kubernetes manifests and the Compose file against the services they start.

    python manifests.py --bin-dir target/release [--root REPOSITORY] [--no-scan]

Renders every overlay with `kubectl kustomize`, validates all objects offline for the three newest versions of
Kubernetes that the schemas are there for, runs a policy scanner, and compares names, ports, flags and probes with what
the services say in `--help`. Prints a line a check; exits with 1 on a fault, with 2 when a tool is missing.
Needs manifests-requirements.txt and kubectl.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from manifest_checks.chart import Chart, helm_python
from manifest_checks.docker import compose_faults, dockerfile_faults
from manifest_checks.members import listen_faults, membership_faults
from manifest_checks.monitoring import (
    ALERTS,
    DASHBOARD,
    copy_faults,
    dashboard_faults,
    monitoring_faults,
    write_copies,
)
from manifest_checks.objects import Overlay, distinct, newest_versions, render, schema_faults
from manifest_checks.pods import (
    ending_faults,
    identity_faults,
    probe_faults,
    shard_faults,
    worker_set_faults,
    workload_faults,
)
from manifest_checks.policies import policy_faults
from manifest_checks.programs import OPERATOR, SERVICES, SUBCOMMANDS, read_help
from manifest_checks.references import reference_faults
from manifest_checks.restrictions import restricted_faults


def give_up(message):
    print(f"cannot check: {message}", file=sys.stderr)
    sys.exit(2)


class Report:
    """Collects faults and prints a line for each check."""

    def __init__(self):
        self.failed = False

    def check(self, name, faults):
        faults = list(faults)
        for fault in faults:
            print(f"FAULT: {name}: {fault}")
        if not faults:
            print(f"ok: {name}")
        self.failed |= bool(faults)


def scan_faults(root, overlays):
    checkov = shutil.which("checkov", path=str(Path(sys.executable).parent)) or shutil.which("checkov")
    if not checkov:
        give_up("no checkov: install tests/python/manifests-requirements.txt, or leave it out by --no-scan")
    with tempfile.TemporaryDirectory() as folder:
        files = [root / "docker/Dockerfile"]
        # The others have nothing that it looks at and these have not.
        for overlay in (o for o in overlays if o.name not in ("prefixed", "local-spares", "chart-open")):
            files.append(Path(folder, f"{overlay.name}.yaml"))
            files[-1].write_text(yaml.safe_dump_all([o for _, o in distinct([overlay])]))
        arguments = [part for file in files for part in ("-f", file)]
        done = subprocess.run(
            [checkov, "--config-file", root / "k8s/.checkov.yaml", *arguments], capture_output=True, text=True
        )
    passed = sum(map(int, re.findall(r"Passed checks: (\d+)", done.stdout)))
    if done.returncode or not passed:
        yield (done.stdout + done.stderr).strip()


# Those with spare workers.
WITH_SPARES = {"production", "gpu", "prefixed", "local-spares"}
# What no overlay is, but docs/kubernetes.md says how to make it: below, components, other fields.
MADE = {
    "local-open": ("overlays/local", ["components/open-gateway"], {}),
    "local-spares": ("overlays/local", ["components/spare-replicas"], {}),
    "from-hub": ("base", ["components/from-hub"], {}),
    "gateway-api": ("base", ["components/gateway-api"], {"namePrefix": "blue-", "namespace": "blue"}),
    "prefixed": ("overlays/production", [], {"namePrefix": "blue-", "namespace": "elsewhere"}),
}


def rendered_overlays(kubectl, k8s, report):
    overlays = []
    with tempfile.TemporaryDirectory() as made:
        folders = [k8s / "base", *sorted((k8s / "overlays").iterdir())]
        folders += [made_overlay(Path(made).resolve() / name, k8s, *rest) for name, rest in MADE.items()]
        for folder in folders:
            try:
                replicas = 2 if folder.name in WITH_SPARES else 1
                overlays.append(Overlay(folder.name, render(kubectl, folder), replicas))
                report.check(f"{folder.name} renders, {len(overlays[-1].objects)} objects", [])
            except ValueError as error:
                report.check(f"{folder.name} renders", [error])
    return overlays


def made_overlay(folder, k8s, below, components, fields):
    folder.mkdir()
    below, *components = (os.path.relpath(k8s / part, folder) for part in (below, *components))
    text = yaml.safe_dump({"resources": [below], "components": components} | fields)
    (folder / "kustomization.yaml").write_text(text)
    return folder


def checked_chart(folder, overlays, report):
    """Renderings of the chart, to be held against all else too."""
    if helm_python is None:
        print("SKIPPED: no helm-python-sdk for this machine: the chart was NOT checked")
        return []
    chart = Chart(folder)
    for base in (o for o in overlays if o.name == "base"):
        report.check("the chart is k8s/base, and its values arrive", chart.faults(base))
    return list(chart.overlays())


def check_workloads(overlays, programs, report):
    def every(name, faults, service=None, needs_program=True):
        """Runs a check over all workloads, or those of one service."""
        chosen = [w for o in overlays for w in o.workloads if service in (None, w.service)]
        found = ((w, faults(w, programs[w.service]) if needs_program else faults(w)) for w in chosen)
        report.check(f"{name} ({len(chosen)} workloads)", (f"{w}: {fault}" for w, of_one in found for fault in of_one))

    every("variables, flags, images, ports and metrics are the services' own", workload_faults)
    every("probes ask what the services answer, each its own question", probe_faults)
    every("pods outlive their drain timeout", ending_faults)
    every("pods are restricted", restricted_faults, needs_program=False)
    one_by_one = "a set has the replicas of one shard, updated one by one"
    every(one_by_one, worker_set_faults, service="shard-worker", needs_program=False)
    every("identities and models lie on volumes", identity_faults)
    every("who is let in needs the secret, or a key", membership_faults)
    every("ports are reached from outside of the pod", lambda w, program: listen_faults(w.environment, program))


def check_overlays(overlays, programs, report):
    for version in newest_versions(3):
        report.check(f"objects are valid in Kubernetes {version}, strictly", schema_faults(overlays, version))
    check_workloads(overlays, programs, report)
    report.check(
        "network policies cover every pod and open only the drawn arrows",
        (f"{o.name}: {f}" for o in overlays for f in policy_faults(o, programs)),
    )
    report.check(
        "every shard has its replicas, and evictions leave one where there are two",
        (f for o in overlays for f in shard_faults(o, programs)),
    )
    report.check("what is named exists", (f for o in overlays for f in reference_faults(o)))


def check_monitoring(root, overlays, report):
    report.check("alerts and dashboard are copies of those in docs/", copy_faults(root))
    report.check("each query of the dashboard is of what its reader has chosen", dashboard_faults(root))
    groups = yaml.safe_load((root / ALERTS).read_text())["groups"]
    dashboard = json.loads((root / DASHBOARD).read_text())
    report.check(
        "who monitors has the alerts and the dashboard",
        (f for o in overlays for f in monitoring_faults(o, groups, dashboard)),
    )


def read_programs(bin_dir):
    """The services, and `llama-swarm health`, or none where it is not there."""
    try:
        programs = {name: read_help(bin_dir / name) for name in SERVICES}
        programs |= {name: read_help(bin_dir / OPERATOR, name) for name in SUBCOMMANDS}
    except LookupError as error:
        give_up(f"{error}; build the services first, see --bin-dir")
    try:
        return programs, read_help(bin_dir / "llama-swarm", "health")
    except LookupError:
        return programs, None


def read_options():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bin-dir", type=Path, help="where the services' binaries are")
    arguments.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the repository")
    arguments.add_argument("--write-copies", action="store_true", help="of docs/, where k8s/ needs them; then end")
    arguments.add_argument("--no-scan", action="store_true", help="leave out the policy scanner")
    return arguments.parse_args()


def main():
    options = read_options()
    if options.write_copies:
        write_copies(options.root)
        return
    if not options.bin_dir:
        give_up("--bin-dir is missing: where the services' binaries are")
    kubectl = shutil.which("kubectl")
    if not kubectl:
        give_up("no kubectl in PATH: it renders the manifests (`kubectl kustomize`)")
    programs, health = read_programs(options.bin_dir)
    report, docker = Report(), options.root / "docker"
    overlays = rendered_overlays(kubectl, options.root / "k8s", report)
    overlays += checked_chart(options.root / "k8s/chart", overlays, report)
    check_overlays(overlays, programs, report)
    check_monitoring(options.root, overlays, report)
    for file, faults in (("compose.yaml", compose_faults), ("Dockerfile", dockerfile_faults)):
        report.check(f"docker/{file} fits the services", faults(docker / file, programs, health, options.bin_dir))
    if not options.no_scan:
        report.check("the policy scanner finds nothing (skips: k8s/.checkov.yaml)", scan_faults(options.root, overlays))
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
