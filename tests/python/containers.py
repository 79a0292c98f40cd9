"""Runs a whole swarm in containers, loses workers in it, and measures how that is seen.

    python containers.py --bin-dir target/release [--model FILE] [--images PREFIX:TAG] [--keep] [--collector IMAGE]

Builds the four images from the binaries in --bin-dir, starts docker/compose.yaml, and holds it against what README.md
promises: who is killed or cut off is OFFLINE on every other node within two seconds, comes back as the same peer, and
an answer goes on over the loss of a worker; a request is one trace in the collector's log. Prints a line a check, with
what was measured; exits with 1 on a fault, with 2 when something is missing. Where there is no Docker engine, nothing
is run and the exit code is 0.

Needs docker, docker-compose or the compose plugin, Linux binaries; for the base images, if they are not there, root
and debootstrap; for the collector an image, or otelcol on the path (tests/collector/build.sh) or in the variable
OTELCOL. Only the standard library. Everything it makes has names and ports of its own and is removed at the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from container_tests.engine import give_up, succeeds
from container_tests.images import GivenImages, Images, find_collector
from container_tests.model import default_model
from container_tests.scenarios import SCENARIOS
from container_tests.swarm import NODES, Scene, Swarm, compose_command
from running import BOUND, Failure, Report, run_in_order


def show_suspects(swarm, report):
    for node in sorted(report.suspects):
        for container in swarm.container_ids(node):
            command = ["docker", "logs", "--tail", "60", container]
            log = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BOUND)
            print(f"--- {node} {container[:12]}\n{log.stdout}", flush=True)
    report.suspects.clear()


def run_scenarios(swarm, images, report, bin_dir):
    scene = None
    try:
        since = time.monotonic()
        images.build()
        if swarm.collector:
            swarm.collector.build()
        report.check(True, f"images {images.prefix}/*:{images.tag} are there after {time.monotonic() - since:.0f} s")
        scene = Scene.start(swarm, report, bin_dir)
        run_in_order(SCENARIOS, scene, lambda: show_suspects(swarm, report))
    except Failure as failure:
        report.check(False, failure, failure.nodes)
    except subprocess.TimeoutExpired as late:
        report.check(False, f"not within {late.timeout:.0f} s: {late.cmd}", NODES)
    finally:
        if scene:
            scene.observers.stop()
    show_suspects(swarm, report)


def clean_up(swarm, images):
    # A second Ctrl-C must not leave half of it behind.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    faults = []
    for made in filter(None, (swarm, swarm.collector, images)):
        try:
            made.remove()
        except (Failure, subprocess.TimeoutExpired) as fault:
            faults.append(str(fault))
    return faults


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=Path, required=True, help="where the built binaries are")
    parser.add_argument("--model", type=Path, help="a .gguf file of SmolLM2; default: the user's, fetched if need be")
    parser.add_argument("--images", metavar="PREFIX:TAG", help="use these images and build none")
    parser.add_argument("--collector", metavar="IMAGE", help="the collector's image; default: made from otelcol")
    parser.add_argument("--keep", action="store_true", help="keep the images, bases included")
    return parser.parse_args()


def main():
    arguments = read_arguments()
    if not succeeds("docker", "info"):
        print("SKIPPED: no Docker engine: the container scenarios were NOT run")
        return 0
    compose, bin_dir = compose_command(), arguments.bin_dir.resolve()
    if not compose:
        give_up("neither docker-compose nor the compose plugin is there")
    if not (bin_dir / "llama-swarm").exists():
        give_up(f"no {bin_dir}/llama-swarm: run cargo build --release --locked --workspace")
    try:
        model = (arguments.model or default_model(bin_dir)).resolve(strict=True)
    except (OSError, Failure, subprocess.TimeoutExpired) as error:
        give_up(f"no model: {error}")
    if not model.stat().st_mode & 0o004:
        give_up(f"{model} must be readable by everybody: the containers' user is not its owner")

    run_name = f"{os.getpid()}{os.urandom(3).hex()}"
    if arguments.images:
        images = GivenImages(*arguments.images.rsplit(":", 1))
    else:
        images = Images(run_name, bin_dir, arguments.keep)
    collector = find_collector(run_name, arguments.collector)
    swarm, report = Swarm(run_name, compose, images, model, collector), Report()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        run_scenarios(swarm, images, report, bin_dir)
    finally:
        faults = clean_up(swarm, images)
        report.check(not faults, f"everything that was made is removed {' '.join(faults)}".strip())
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
