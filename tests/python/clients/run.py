#!/usr/bin/env python3
"""Runs clients against a gateway that is up already: run.py --venvs FOLDER http://host:port NAME…

For each NAME it makes a virtual environment FOLDER/NAME, installs NAME.txt in it, and runs NAME_run.py. Without a NAME:
all of them. Needs nothing but the standard library.
"""

import argparse
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.txt"))
# A swarm on two cores answers all steps of any script well within it.
BOUND = 1800


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url", help="the gateway, as http://127.0.0.1:8080")
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    arguments.add_argument("--venvs", type=pathlib.Path, required=True, help="a folder for what is installed; kept")
    given = arguments.parse_args()
    unknown = sorted(set(given.names) - set(NAMES))
    if unknown:
        arguments.error(f"no such client: {', '.join(unknown)}")
    failed = [name for name in given.names or NAMES if not run(name, given.url, given.venvs)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    sys.exit(bool(failed))


def run(name, url, venvs):
    print(f"\n== {name}", flush=True)
    python = installed(name, venvs)
    try:
        return subprocess.run([python, HERE / f"{name}_run.py", url], timeout=BOUND).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"FAULT: not done within {BOUND} s", flush=True)
        return False


def installed(name, venvs):
    """The Python of an environment that has what the client needs; made if it is not there."""
    place = (venvs / name).resolve()
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / f"{name}.txt"], check=True)
    return python


if __name__ == "__main__":
    main()
