"""Looks at what .ci/release made, then installs it as its users would and asks each installation a question.

    .ci/release --check
    python release.py --dist target/dist [--model FILE] [--runner COMMAND] [--keep]

The archive with install.sh, the .deb, and by rpm the .rpm, go into containers of Debian's smallest system: no Rust, no
Python, no network. In one more, with systemd, the .deb's services make a swarm. Prints a line a check; exits with 1 on a
fault.
Where there is no Docker engine, only the files are looked at, and it says so.

One for another system is looked at as files, and its programs are run by what --runner says: a swarm of them answers.

    python release.py --dist DIR --runner "qemu-aarch64 -L /usr/aarch64-linux-gnu"
    python release.py --dist DIR --runner wine

Needs dpkg-deb, and for the containers Docker, root and debootstrap. What is not there is told with SKIPPED. Only the
standard library. --keep leaves the base images.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from container_tests.engine import succeeds
from container_tests.model import default_model
from release_checks import elsewhere, files, installs
from running import Failure, Report, docker


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, required=True, help="the folder that .ci/release filled")
    parser.add_argument("--model", type=Path, help="a .gguf file of SmolLM2; default: the user's, fetched if need be")
    parser.add_argument("--bin-dir", type=Path, default=Path("target/release"), help="whose llama-swarm fetches it")
    parser.add_argument("--runner", type=shlex.split, help="runs the programs of another system")
    parser.add_argument("--keep", action="store_true", help="keep the base images")
    return parser.parse_args()


def model_of(options):
    return (options.model or default_model(options.bin_dir)).resolve()


def install(dist, options, report):
    if not succeeds("docker", "version"):
        print("SKIPPED: no Docker engine: nothing was installed")
        return
    model = model_of(options)
    for scenario in installs.SCENARIOS:
        try:
            scenario(dist, model, report)
        except (Failure, subprocess.TimeoutExpired) as fault:
            report.check(False, f"{scenario.__name__}: {fault}")
    if not options.keep:
        made = docker("images", "--quiet", f"{installs.PREFIX}/*").split()
        if made:
            docker("rmi", *made)


def main():
    options = read_arguments()
    report = Report()
    try:
        dist = files.Dist(options.dist)
        for scenario in files.FOR_WINDOWS if dist.is_windows else files.SCENARIOS:
            scenario(dist, report)
        if options.runner:
            elsewhere.a_swarm_of_it_answers(dist, model_of(options), options.runner, report)
        elif dist.is_windows:
            print("SKIPPED: no --runner: the programs were NOT run")
        else:
            files.the_installer_fetches(dist, report)
            install(dist, options, report)
    except Failure as fault:
        report.check(False, fault)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
