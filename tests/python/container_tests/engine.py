"""The Docker engine: asking it, and removing what was made in it."""

import subprocess
import sys
from pathlib import Path

from running import Failure, docker

ROOT = Path(__file__).resolve().parents[3]
# Building images, and fetching a model.
LONG_BOUND = 1800.0


def give_up(message):
    print(f"cannot check: {message}", file=sys.stderr)
    sys.exit(2)


def succeeds(*command):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def remove_all(listing, removal):
    """Removes what one docker command lists by another, until it lists nothing."""
    for _ in range(10):
        if not (made := docker(*listing).split()):
            return
        docker(*removal, *set(made))
    raise Failure(f"left behind: {' '.join(made)}")
