"""Runs k8s/overlays/local in a live cluster and holds it against what docs/kubernetes.md promises.

    python scenarios.py [--tag 0.1.0] [--nodes 3] [--keep]

Makes the cluster (cluster.py), brings the images llama-swarm/*:TAG to it, applies the manifests as the docs say, asks the
model, loses workers, the rendezvous and a node. Prints a line a check, with what was measured; exits with 1 on a fault.
Needs what cluster.py needs, the images with the model inside, that of llama-swarm, and PyYAML. Removes the cluster at the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import time

from cluster import Cluster
from losses import (
    a_deleted_pod,
    a_hung_process,
    a_killed_process,
    a_lost_node,
    a_pod_that_drains,
    an_answer_over_a_loss,
    the_rendezvous_goes,
)
from policies import Policies
from reach import only_drawn_arrows_pass
from restarts import a_rolling_restart, an_update_with_spares, evictions_wait_for_each_other, spares_take_over
from running import Failure, Report, note, run_in_order
from scene import IMAGES, NAMESPACE, PROBER, Scene
from starting import everybody_sees_all, everything_starts, other_overlays_are_accepted, the_model_answers
from strangers import who_has_another_secret

# The others build on these.
FIRST = (
    other_overlays_are_accepted,
    everything_starts,
    everybody_sees_all,
    the_model_answers,
)
SCENARIOS = (
    only_drawn_arrows_pass,
    who_has_another_secret,
    a_killed_process,
    a_deleted_pod,
    a_pod_that_drains,
    an_answer_over_a_loss,
    the_rendezvous_goes,
    evictions_wait_for_each_other,
    a_rolling_restart,
    a_hung_process,
    a_lost_node,
    spares_take_over,
    an_update_with_spares,
)


def show_logs(scene, suspects):
    for suspect in sorted(suspects):
        # Who asks knows the gateway by its service.
        name = "deployment/gateway" if suspect == "gateway" else suspect
        for previous in ([], ["--previous"]):
            command = ["kubectl", "--kubeconfig", scene.cluster.kubeconfig, "--namespace", NAMESPACE, "logs"]
            command += ["--tail=40", *previous, name]
            log = subprocess.run(command, capture_output=True, text=True, timeout=60)
            print(f"--- {name} {' '.join(previous)}\n{log.stdout}", flush=True)


def run_scenarios(cluster, report, tag, only):
    scene = Scene(cluster, report, tag, Policies(cluster))
    try:
        since = time.monotonic()
        cluster.up()
        cluster.load(PROBER, *(f"llama-swarm/{image.format(tag)}" for image in IMAGES))
        report.check(True, f"a cluster of {len(cluster.nodes)} nodes is there after {time.monotonic() - since:.0f} s")
        scene.policies.start()
        chosen = [scenario for scenario in SCENARIOS if not only or scenario.__name__ in only]
        run_in_order([*FIRST, *chosen], scene)
    except Failure as failure:
        report.check(False, failure, failure.nodes)
    except subprocess.TimeoutExpired as error:
        report.check(False, error)
    finally:
        for watch in scene.watches.values():
            watch.stop()
        if scene.client:
            scene.client.close()
    if scene.policies.is_alive():
        scene.policies.stop()
    if report.suspects:
        show_logs(scene, report.suspects)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", default="0.1.0")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the cluster")
    parser.add_argument("--only", action="append", help="a scenario, by its name; more than once: several")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    cluster, report = Cluster(f"llama-swarm-cluster-{os.getpid()}", arguments.nodes), Report()
    try:
        run_scenarios(cluster, report, arguments.tag, arguments.only)
    finally:
        if arguments.keep:
            note(f"kept: cluster.py down --name {cluster.name}")
        else:
            cluster.down()
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
