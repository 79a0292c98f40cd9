"""Workers are lost, and who sees it when."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from container_tests.swarm import WORKERS, transports
from observing import PROMISE, QUESTION
from running import docker, note, wait_until

# Where nobody knows when a command acted, all its time counts against the promise, unless it took longer than this:
# then the promise counts from its return.
QUICK_COMMAND = 0.25


@dataclass
class Loss:
    """A worker goes by one docker command and comes back by another."""

    worker: str
    lose: list
    regain: list
    # Called before the command; gives a function that says, after it, when the worker was gone, if anybody knows.
    observe: Callable[[], Callable[[], float | None]]

    @property
    def names(self):
        """Both commands without what only this run understands."""
        return [
            f"docker {' '.join(command[: -1 if len(command) == 2 else -2])}" for command in (self.lose, self.regain)
        ]

    def happen(self):
        """Gives when the command was issued, when the worker was gone, and when the command returned."""
        observed = self.observe()
        issued = time.monotonic()
        docker(*self.lose)
        returned = time.monotonic()
        gone = observed()
        if gone is None:
            gone = issued if returned - issued <= QUICK_COMMAND else returned
        # Of other clocks only this much is believed: it was gone while the command ran.
        return issued, min(max(gone, issued), returned), returned


def end_of_process(container):
    """By the kernel, or by the engine, which hears of it a little later."""
    seen = end_by_kernel(container, runs)

    def finished():
        text = docker("inspect", "--format", "{{.State.FinishedAt}}", container).strip()
        # Nanoseconds are more than Python reads.
        seconds, _, fraction = text.rstrip("Z").partition(".")
        wall = datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(f"0.{fraction or 0}")
        return wall - time.time() + time.monotonic()

    return lambda: seen() or finished()


def end_of_interface(container):
    return end_by_kernel(container, has_interface)


def runs(process):
    # Behind the command's name; Z is a process that has ended.
    return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


def has_interface(process):
    return "eth" in (process / "net/dev").read_text()


def end_by_kernel(container, still):
    """Looks until a container's process is no longer `still` so; nothing where the engine is on another machine."""
    process = Path("/proc", docker("inspect", "--format", "{{.State.Pid}}", container).strip())
    gone, over = [], threading.Event()

    def so():
        try:
            return still(process)
        except OSError:
            return False

    def look():
        while so():
            if over.wait(0.005):
                return
        gone.append(time.monotonic())

    def seen():
        looking.join(1)
        over.set()
        return gone[0] if gone else None

    try:
        if container not in (process / "cgroup").read_text() or not so():
            return lambda: None
    except OSError:
        return lambda: None
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    return seen


def lose_and_regain(scene, loss):
    shard = WORKERS.index(loss.worker)
    (peer,) = scene.peers[shard]
    gone = see_offline(scene, loss, shard, peer)
    wait_until(lambda: not scene.swarm.ready(), "/readyz says no", ["gateway"])
    see_back(scene, loss, gone)
    again = scene.swarm.ask(QUESTION, 32)
    scene.report.check(again == scene.answer, f"{loss.worker} is back: the same answer as before", ["gateway"])


def see_offline(scene, loss, shard, peer):
    issued, gone, returned = loss.happen()
    seen = {
        node: watch.wait(lambda seen: seen.state(shard, peer) == "OFFLINE", f"{loss.worker} OFFLINE", issued).at
        for node, watch in scene.observers.others(loss.worker).items()
    }
    late, compared = scene.observers.lateness(issued)
    # A machine under load tells late that the worker is gone; who has seen it knows better.
    gone = min(gone, *seen.values())
    slowest = max(seen.values()) - gone
    too_late = [node for node, at in seen.items() if at - gone > PROMISE + late]
    scene.report.check(
        not too_late,
        f"{loss.names[0]} {loss.worker}: OFFLINE on all {len(seen)} other nodes within {slowest:.2f} s "
        f"({max(seen.values()) - issued:.2f} s from issuing the command)",
        too_late,
    )
    note("each: " + ", ".join(f"{node} {at - gone:.2f}" for node, at in seen.items()))
    note(
        f"counted from {gone - issued:.2f} s after issuing the command, which took {returned - issued:.2f} s; "
        f"docker exec told up to {late * 1000:.0f} ms late ({compared} statuses)"
    )
    return gone


def see_back(scene, loss, gone):
    issued = time.monotonic()
    docker(*loss.regain)
    if loss.regain[0] == "start":
        scene.observers.inside[loss.worker].start()
    seen = scene.wait_whole(issued)
    slowest = max(seen.values()) - issued
    scene.report.check(
        True,
        f"{loss.worker} is back after {issued - gone:.1f} s: the same peer, LOADED on all {len(seen)} nodes, nobody "
        f"else in the lists, {slowest:.2f} s after {loss.names[1]}",
    )
    note(f"connections to workers: {transports(scene)}")


def a_killed_worker(scene):
    container = scene.containers["worker-3"]
    kill, start = ["kill", container], ["start", container]
    lose_and_regain(scene, Loss("worker-3", kill, start, lambda: end_of_process(container)))


def a_cut_network(scene):
    network, container = scene.swarm.network(), scene.containers["worker-5"]
    cut, mend = (["network", verb, network, container] for verb in ("disconnect", "connect"))
    lose_and_regain(scene, Loss("worker-5", cut, mend, lambda: end_of_interface(container)))
