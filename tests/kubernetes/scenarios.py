"""Runs the manifests in a live cluster and holds them against what docs/kubernetes.md promises.

    python scenarios.py [SCENARIO…] [--tag 0.1.0] [--nodes 3] [--keep] [--on CLUSTER] [--list]

Makes the cluster (cluster.py), brings the images llama-swarm/*:TAG to it, applies one after the other the overlays local
and production, the chart, and k8s/base under other names; asks the model, loses workers, the rendezvous and a node, and
updates all. Prints a line a check, with what was measured. A scenario that fails does not keep others from running: what
it left is put right first. The last lines tell how each went; exits with 1 on a fault.

SCENARIO: these alone, by name, and what they build on. --keep leaves the cluster, and --on uses it again: all swarms
are made again there, the cluster is not.

Needs what cluster.py needs, the images, three of them also with the model inside (.ci/cluster), the command llama-swarm,
PyYAML and helm-python-sdk. Removes the cluster at the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from cluster import ROOT, Cluster
from answers import a_spare_for_a_deleted_worker, a_worker_deleted_in_answers
from losses import (
    a_deleted_pod,
    a_hung_process,
    a_killed_process,
    a_lost_node,
    a_pod_that_drains,
    an_answer_over_a_loss,
    the_rendezvous_goes,
)
from overlays import listed
from policies import Policies
from reach import only_drawn_arrows_pass
from restarts import (
    a_rolling_restart,
    an_update_with_spares,
    evictions_wait_for_each_other,
    spares_come,
    spares_take_over,
)
from running import Failure, Report, note
from scene import IMAGES, NAMESPACE, PROBER, Scene, is_ready
from starting import find_reference, it_is_taken_away, other_overlays_are_accepted, the_local_overlay_runs
from strangers import OTHER, POD, who_has_another_secret
from swarms import (
    FEW,
    a_deleted_worker_fetches_again,
    a_prefixed_swarm_runs,
    production_runs,
    share_goes,
    the_chart_runs,
)

# Of the scenarios' own: no part of a swarm.
BESIDE = ("stranger", "monitoring")


@dataclass
class Swarm:
    """A namespace of its own, and what is done there in this order."""

    place: dict
    scenarios: tuple


SWARMS = (
    Swarm({"namespace": NAMESPACE}, (other_overlays_are_accepted,)),
    Swarm(
        {"namespace": NAMESPACE},
        (
            the_local_overlay_runs,
            only_drawn_arrows_pass,
            who_has_another_secret,
            a_killed_process,
            a_deleted_pod,
            a_pod_that_drains,
            an_answer_over_a_loss,
            a_worker_deleted_in_answers,
            the_rendezvous_goes,
            evictions_wait_for_each_other,
            a_rolling_restart,
            a_hung_process,
            a_lost_node,
            spares_come,
            a_spare_for_a_deleted_worker,
            spares_take_over,
            an_update_with_spares,
            it_is_taken_away,
        ),
    ),
    Swarm(
        {"namespace": "production", "replicas": 2},
        (production_runs, a_deleted_worker_fetches_again, share_goes),
    ),
    Swarm({"namespace": "charted", "prefix": "blue-", "shards": FEW}, (the_chart_runs,)),
    Swarm({"namespace": "prefixed", "prefix": "green-", "shards": FEW}, (a_prefixed_swarm_runs,)),
)
# Those after them in the same swarm build on these.
GROUND = {the_local_overlay_runs, spares_come, production_runs}
NAMES = [scenario.__name__ for swarm in SWARMS for scenario in swarm.scenarios]


class Run:
    """Of the scenarios that are asked for; all, if none is."""

    def __init__(self, scene, names):
        self.scene, self.names, self.results = scene, names or NAMES, []

    def run(self):
        for swarm in SWARMS:
            asked = [place for place, scenario in enumerate(swarm.scenarios) if scenario.__name__ in self.names]
            if not asked:
                continue
            upto = swarm.scenarios[: asked[-1] + 1]
            self._in_swarm(swarm, [each for each in upto if each.__name__ in self.names or each in GROUND])

    def _in_swarm(self, swarm, scenarios):
        left = [scenario.__name__ for scenario in scenarios]
        try:
            self.scene.enter(**swarm.place)
            for scenario in scenarios:
                fault = self._attempt(scenario)
                left.pop(0)
                if fault and scenario in GROUND:
                    break
                if fault and left:
                    heal(self.scene)
        except Exception as failure:
            # The swarms after this one are to be tried all the same.
            self.scene.report.check(False, f"cannot go on in {self.scene.namespace}: {failure}")
            show_state(self.scene)
        self.results += [(name, "NOT RUN", 0) for name in left]
        try:
            self.scene.leave()
        except Exception as failure:
            self.scene.report.check(False, f"{self.scene.namespace} is not removed: {failure}")

    def _attempt(self, scenario):
        """Whether it was broken off."""
        report, since, broken = self.scene.report, time.monotonic(), False
        print(f"== {scenario.__name__}", flush=True)
        failed = report.failed
        try:
            scenario(self.scene)
        except Failure as failure:
            broken = True
            report.check(False, failure, failure.nodes)
        except Exception:
            # Whatever it is, the others are to be run.
            broken = True
            report.check(False, traceback.format_exc())
        if broken:
            show_state(self.scene)
        show_logs(self.scene, report.suspects)
        report.suspects.clear()
        good = report.failed == failed
        self.results.append((scenario.__name__, "ok" if good else "FAULT", time.monotonic() - since))
        return broken

    def summary(self):
        print("== summary")
        for name, how, seconds in self.results:
            print(f"{how:8}{seconds:6.0f} s  {name}")
        return all(how == "ok" for _, how, _ in self.results)


def heal(scene):
    """Puts right what a scenario left that was broken off."""
    note("the swarm is put right")
    for node in scene.cluster.nodes:
        scene.cluster.regain(node)
    remove_beside(scene.cluster)
    force = ("--ignore-not-found", "--grace-period", "0", "--force")
    scene.kubectl("delete", "pod", POD, "prober", *force)
    scene.kubectl("delete", "secret", OTHER, "--ignore-not-found")
    if not scene.policies.is_alive():
        scene.policies = Policies(scene.cluster)
        scene.policies.start()
    scene.kubectl("apply", "--filename", "-", input=listed(scene.applied))
    scene.wait_for_workers()
    scene.wait_for(f"deployment/{scene.prefix}gateway")
    scene.watch_all_again()


def remove_beside(cluster, *more):
    cluster.kubectl("delete", "namespace", *BESIDE, *more, "--ignore-not-found")


def show_state(scene):
    """Pods, what happened to them last, and the logs of those that are not ready."""
    for command in (["get", "pods", "--output", "wide"], ["get", "events", "--sort-by", ".lastTimestamp"]):
        try:
            print("\n".join(scene.kubectl(*command).splitlines()[-25:]), flush=True)
        except (Failure, subprocess.TimeoutExpired) as failure:
            print(failure, flush=True)
    try:
        show_logs(scene, [pod for pod in scene.pods() if not is_ready(scene, pod)][:3])
    except (Failure, subprocess.TimeoutExpired) as failure:
        print(failure, flush=True)


def show_logs(scene, suspects):
    for suspect in sorted(suspects):
        # Who asks knows the gateway by its service.
        name = f"deployment/{scene.prefix}gateway" if suspect == "gateway" else suspect
        for previous in ([], ["--previous"]):
            command = ["kubectl", "--kubeconfig", scene.cluster.kubeconfig, "--namespace", scene.namespace, "logs"]
            command += ["--tail=40", *previous, name]
            log = subprocess.run(command, capture_output=True, text=True, timeout=60)
            print(f"--- {name} {' '.join(previous)}\n{log.stdout}", flush=True)


def prepare(cluster, report, is_there):
    since = time.monotonic()
    if is_there:
        remove_beside(cluster, *{swarm.place["namespace"] for swarm in SWARMS})
        cluster.renew_volumes()
    else:
        cluster.up()
    return since


def run_scenarios(scene, names, is_there):
    cluster, report, run = scene.cluster, scene.report, Run(scene, names)
    try:
        since = prepare(cluster, report, is_there)
        cluster.load(PROBER, *(f"llama-swarm/{image.format(scene.tag)}" for image in IMAGES))
        report.check(True, f"a cluster of {len(cluster.nodes)} nodes is there after {time.monotonic() - since:.0f} s")
        scene.policies.start()
        run.run()
    except Failure as failure:
        report.check(False, failure, failure.nodes)
    except subprocess.TimeoutExpired as error:
        report.check(False, error)
    finally:
        scene.look_away()
    if scene.policies.is_alive():
        scene.policies.stop()
    return run.summary()


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="these alone, and what they build on")
    parser.add_argument("--tag", default="0.1.0")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the cluster")
    parser.add_argument("--on", metavar="CLUSTER", help="a cluster that was kept, by its name; it is kept again")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/llama-swarm", help="gives the reference")
    parser.add_argument("--list", action="store_true", help="the scenarios' names")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - set(NAMES):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return arguments


def main():
    arguments = read_arguments()
    if arguments.list:
        print("\n".join(NAMES))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    cluster, report = Cluster(arguments.on or f"llama-swarm-cluster-{os.getpid()}", arguments.nodes), Report()
    scene = Scene(cluster, report, arguments.tag, policies=Policies(cluster))
    try:
        scene.reference = find_reference(arguments.program)
        note(f"reference, by one process: {scene.reference!r}")
        all_well = run_scenarios(scene, arguments.scenarios, bool(arguments.on))
    except (Failure, OSError, subprocess.TimeoutExpired) as failure:
        report.check(False, f"no reference: {failure}")
        all_well = False
    finally:
        if arguments.keep or arguments.on:
            note(f"kept: scenarios.py --on {cluster.name}, cluster.py down --name {cluster.name}")
        else:
            cluster.down()
    print(f"{report.passed} passed, {report.failed} failed")
    return 0 if all_well and not report.failed else 1


if __name__ == "__main__":
    sys.exit(main())
