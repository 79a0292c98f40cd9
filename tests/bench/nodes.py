"""The nodes that the benchmarks beside this start, and end by their own ids."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path

RELEASE = Path(__file__).resolve().parents[2] / "target/release"
SOON = 180
INSIDE = "LLAMA_SWARM_BENCH_INSIDE"
LISTEN_BY_QUIC = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]
LISTEN_BY_TCP = ["--listen", "/ip4/127.0.0.1/tcp/0"]


class Node:
    """A process that this script has started, and ends by its own id. `apart`: in a session of its own, where each session
    has its share of the processors."""

    def __init__(self, given, folder, name, command, apart=False):
        self.name, self.apart, self.log = name, apart, folder / f"{name}.log"
        self.told, self.started = folder / f"{name}.json", 0
        command += ["--address-file", self.told, "--identity", folder / f"{name}.key", "--grpc-listen", "127.0.0.1:0"]
        self.command = [str(part) for part in [given.ours, *command]]
        self.start()

    def start(self):
        self.told.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            environment = {"RUST_LOG": "info", **os.environ, "NO_COLOR": "1"}
            self.process = subprocess.Popen(
                self.command, stdout=subprocess.DEVNULL, stderr=log, env=environment, start_new_session=self.apart
            )
        wait_for(f"the ports of {self.name}", self.told.exists)
        self.addresses = json.loads(self.told.read_text())

    def kill(self):
        """Gives the moment of the signal."""
        moment = time.time()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return moment

    def metrics(self):
        """The values of all series, by their names without the swarm's, which is the same in all."""
        text = urllib.request.urlopen(f"http://{self.addresses['grpc']}/metrics").read().decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {re.sub(r'cluster="[^"]*",?', "", name).removesuffix("{}"): float(value) for name, value in lines}

    def first_line(self, words, behind):
        """The time of the first line with all these words, behind so many bytes of the log."""
        with self.log.open("rb") as log:
            log.seek(behind)
            for line in log.read().decode().splitlines(keepends=True):
                if line.endswith("\n") and all(word in line for word in words):
                    return datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()
        return None


def enter_namespace(*kinds, before=""):
    """Runs this script again where the networks (and what else these kinds say) are its own and end with it, and the
    loopback device is up; `before` that, these commands. There it does nothing."""
    if INSIDE in os.environ:
        return
    if os.geteuid() != 0:
        raise SystemExit("needs root, for network namespaces")
    command = f'{before} ip link set lo up && exec "$@"'
    again = ["unshare", "--net", *kinds, "sh", "-c", command, "sh", sys.executable, *sys.argv]
    os.execvpe(again[0], again, {**os.environ, INSIDE: "1"})


def end_all(nodes):
    """Ends those that still run."""
    for node in nodes:
        node.process.kill()
        node.process.wait()


def end_when_asked():
    """Has SIGTERM end this script as ^C does, so that it ends its nodes."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def wait_for(what, so):
    until = time.monotonic() + SOON
    while not so():
        if time.monotonic() > until:
            raise SystemExit(f"{what}: never")
        time.sleep(0.02)
