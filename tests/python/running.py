"""What tests in containers and clusters share: running commands, waiting, reporting. Only the standard library."""

import os
import signal
import socket
import subprocess
import time

# Nothing may take longer; a loaded machine with two cores stays far below it.
BOUND = 120.0
POLL = 0.1


class Failure(Exception):
    """A scenario cannot go on. `nodes` are those whose logs tell why."""

    def __init__(self, message, nodes=()):
        super().__init__(message)
        self.nodes = list(nodes)


def run(*command, bound=BOUND, input=None, stdin=subprocess.DEVNULL, **options):
    """Standard output of a command that must succeed. `input`: the text that it reads."""
    words = [str(word) for word in command]
    # A session of its own: Ctrl-C is for this program, which ends its commands itself, with all that they started.
    child = subprocess.Popen(
        words,
        stdin=stdin if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        out, err = child.communicate(input, timeout=bound)
    except BaseException:
        end_group(child)
        raise
    if child.returncode:
        raise Failure(f"{' '.join(words)}: {err.strip() or out.strip()}")
    return out


def docker(*arguments, **options):
    return run("docker", *arguments, **options)


def end_group(child):
    """Lets a script remove its own files first."""
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


class Report:
    """Counts checks and prints a line for each."""

    def __init__(self):
        self.passed = self.failed = 0
        self.suspects = set()  # nodes whose logs may tell why

    def check(self, good, text, nodes=()):
        print(f"{'ok' if good else 'FAULT'}: {text}", flush=True)
        self.passed += bool(good)
        self.failed += not good
        self.suspects |= set() if good else set(nodes)


def note(text):
    print(f"    {text}", flush=True)


def run_in_order(scenarios, scene, after_each=lambda: None):
    """Each builds on what those before it left: one that cannot go on ends it, and what is left out is said."""
    left = [scenario.__name__ for scenario in scenarios]
    for scenario in scenarios:
        name = left.pop(0)
        try:
            scenario(scene)
        except (Failure, subprocess.TimeoutExpired):
            note(f"in {name}; NOT run: {', '.join(left) or 'none'}")
            raise
        after_each()


def wait_until(so, what, nodes=(), bound=BOUND, poll=POLL):
    """Asks again and again, for what tells no changes; gives how long it took. `nodes`: whose logs tell why not."""
    since = time.monotonic()
    while not so():
        if time.monotonic() - since > bound:
            raise Failure(f"not within {bound:.0f} s: {what}", nodes)
        time.sleep(poll)
    return time.monotonic() - since


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
