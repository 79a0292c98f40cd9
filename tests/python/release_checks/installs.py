"""A release as its users install it: in containers of bare Debian, without Rust, without Python, without a network."""

import os
import shlex
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from container_tests.engine import LONG_BOUND, ROOT, succeeds
from release_checks.files import KINDS
from running import BOUND, docker, note, run, wait_until

SUITE = os.environ.get("SUITE", "bookworm")
PREFIX = "llama-swarm-release"
# Greedy, so it is the same each time, and one that this model knows.
QUESTION, ANSWER = "What is the capital of France?", "Paris"
UP = f"up --model /model.gguf --max-tokens 12 --prompt {shlex.quote(QUESTION)}"
NODES = [f"llama-swarm-{kind}.service" for kind in ("rendezvous", "share", "worker", "gateway")]
# systemd sets up name spaces, also of users, and mounts.
FOR_SYSTEMD = [
    *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"),
]


def base(kind, packages=()):
    """An image of Debian's smallest system, made once by debootstrap."""
    image = f"{PREFIX}/{kind}:{SUITE}"
    if succeeds("docker", "image", "inspect", image):
        return image
    note(f"making {image}")
    mirror = os.environ.get("MIRROR") or run(ROOT / "docker/debian-mirror.sh").strip()
    with tempfile.TemporaryDirectory() as root:
        include = [f"--include={','.join(packages)}"] if packages else []
        run("debootstrap", "--variant=minbase", *include, SUITE, root, mirror, bound=LONG_BOUND)
        pack = ["tar", "-C", root, "--exclude=./var/cache/apt/*", "--exclude=./dev/*", "-c", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
            docker("import", "-", image, stdin=packed.stdout, bound=LONG_BOUND)
    return image


class System:
    """A running container, its name, and what runs in it."""

    def __init__(self, name):
        self.name = name

    def run(self, script, bound=BOUND):
        return docker("exec", self.name, "sh", "-euc", script, bound=bound)

    def succeeds(self, script):
        return succeeds("docker", "exec", self.name, "sh", "-euc", script)

    def fails(self, script):
        """Its complaint, on whatever stream."""
        command = ["docker", "exec", self.name, "sh", "-euc", script]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOUND)
        return done.returncode != 0, done.stdout + done.stderr


@contextmanager
def system(image, dist, model, *command, options=()):
    mounts = [f"{dist.folder}:/dist:ro", f"{model}:/model.gguf:ro"]
    volumes = [word for mount in mounts for word in ("--volume", mount)]
    name = f"{PREFIX}-{os.getpid()}-{time.monotonic_ns()}"
    docker("run", "--detach", "--name", name, "--network", "none", *volumes, *options, image, *command)
    try:
        yield System(name)
    finally:
        docker("rm", "--force", "--volumes", name)


def the_installer_does_as_it_says(dist, model, report):
    home = ("--user", "1000:1000", "--env", "HOME=/home/user", "--tmpfs", "/home/user:uid=1000,gid=1000,exec")
    with system(base("bare"), dist, model, "sleep", "infinity", options=home) as bare:
        absent = "! command -v cargo && ! command -v rustc && ! command -v python3 && ! command -v curl"
        report.check(bare.run(f"{absent}") == "", "the system has neither Rust nor Python")
        damaged, said = bare.fails(
            f"mkdir /tmp/bad && cp /dist/SHA256SUMS /tmp/bad && cp /dist/{dist.archive.name} /tmp/bad"
            f" && printf x >> /tmp/bad/{dist.archive.name} && sh /dist/install.sh --from /tmp/bad"
        )
        refused = damaged and "nothing was installed" in said and bare.run("find /home/user -type f") == ""
        report.check(refused, "a damaged archive is refused, and nothing is left of it")
        for wrong in ("", "--from /nowhere", "--from", "--loudly"):
            failed, said = bare.fails(f"sh /dist/install.sh {wrong}")
            report.check(failed and said.startswith("error: "), f"`{wrong}`: {said.strip()}")
        said = bare.run("sh /dist/install.sh --from /dist")
        report.check("is not in PATH" in said and "up --prompt" in said, "it says what to do next")
        since = time.monotonic()
        bare.run("sh /dist/install.sh --from /dist")
        answer = bare.run(f"~/.local/bin/llama-swarm {UP}")
        took = time.monotonic() - since
        report.check(ANSWER in answer, f"it installs over itself, and up --prompt answers {took:.1f} s later: {answer.strip()!r}")
        pages = bare.run("ls ~/.local/share/man/man1 ~/.local/share/bash-completion/completions")
        report.check("llama-swarm-up.1" in pages, "man pages and completions are in their places")
        bare.run("sh /dist/install.sh --uninstall")
        left = bare.run(
            "find ~/.local -type f -not -path '*/state/*'; find ~/.local -name '*llama*' -not -path '*/state/*'"
        )
        report.check(left == "", f"--uninstall leaves nothing {left}")


def the_deb_comes_and_goes(dist, model, report):
    with system(base("bare"), dist, model, "sleep", "infinity") as bare:
        before = bare.run("find /etc /usr /var/lib /var/cache -xdev | sort")
        bare.run(f"dpkg --install /dist/{dist.deb.name}")
        answer = bare.run(f"llama-swarm {UP}")
        report.check(ANSWER in answer, f"up --prompt answers: {answer.strip()!r}")
        state = bare.run("stat -c '%U %a' /var/lib/llama-swarm /var/cache/llama-swarm").split("\n")
        report.check(state[:2] == ["llama-swarm 700"] * 2, "its folders are its user's alone")
        bare.run("dpkg --remove llama-swarm")
        kept = bare.run("ls /etc/llama-swarm /var/lib | cat")
        report.check("worker.env" in kept and "llama-swarm" in kept, "remove leaves settings and state")
        bare.run("dpkg --purge llama-swarm")
        after = bare.run("find /etc /usr /var/lib /var/cache -xdev | sort")
        new = set(after.splitlines()) - set(before.splitlines())
        # The user's record and what dpkg and useradd keep of before.
        new = [path for path in new if not path.endswith("-") and "/lib/dpkg" not in path]
        report.check(not new, f"purge leaves nothing {new or ''}")


def the_rpm_comes_and_goes(dist, model, report):
    """By rpm itself, but on a system of Debian's, as no other is at hand: rpm knows nothing there of what it needs."""
    with system(base("rpm", ("rpm",)), dist, model, "sleep", "infinity") as bare:
        bare.run(f"rpm --force-debian --install --nodeps /dist/{dist.rpm.name}")
        answer = bare.run(f"llama-swarm {UP}")
        report.check(ANSWER in answer, f".rpm: up --prompt answers: {answer.strip()!r}")
        state = bare.run("stat -c '%U %a' /var/lib/llama-swarm /var/cache/llama-swarm").split("\n")
        report.check(state[:2] == ["llama-swarm 700"] * 2, ".rpm: its folders are its user's alone")
        said = bare.run("rpm --verify --nodeps llama-swarm")
        report.check(said == "", f".rpm: what is installed is as it was packed {said}")
        bare.run("echo LLAMA_SWARM_SHARD_ID=0-7 >> /etc/llama-swarm/worker.env && rpm --erase llama-swarm")
        left = bare.run("find /etc /usr -xdev -path '*llama*' -not -type d").split()
        kept = ["/etc/llama-swarm/worker.env.rpmsave"]
        report.check(left == kept, f".rpm: of files it leaves changed settings alone: {left}")


def settle(booted):
    """Waits for all of systemd to have started."""
    wait_until(lambda: booted.succeeds("systemctl is-system-running --quiet"), "systemd runs in the container")


def start_swarm(booted):
    own = "/var/lib/llama-swarm"
    booted.run(
        f"runuser -u llama-swarm -- llama-swarm invite --address 127.0.0.1:4001 --secret-file {own}/swarm.secret"
        f" --identity {own}/rendezvous.key --out {own}/invitation"
    )
    booted.run(f"install -o llama-swarm -m 0400 /model.gguf {own}/model.gguf")
    booted.run("echo LLAMA_SWARM_SHARD_ID=0-7 >> /etc/llama-swarm/worker.env")
    booted.run(f"systemctl start {' '.join(NODES)}")


def units_are_sound(booted, report):
    units = [f"/usr/lib/systemd/system/llama-swarm-{kind}.service" for kind in KINDS]
    said = booted.run(f"systemd-analyze verify --man=no {' '.join(units)} 2>&1")
    report.check(said == "", f"systemd-analyze verify has nothing to say {said}")
    for unit in units:
        # Exposure in tenths: it fails above.
        loose, said = booted.fails(f"systemd-analyze security --offline=true --threshold=30 --no-pager {unit}")
        report.check(not loose, f"{Path(unit).name}: {said.strip().splitlines()[-1]}")


def services_are_locked_in(booted, report):
    for node in NODES:
        pid = booted.run(f"systemctl show --property MainPID --value {node}").strip()
        status = dict(line.split(":\t", 1) for line in booted.run(f"cat /proc/{pid}/status").splitlines())
        user = booted.run(f"stat -c %U /proc/{pid}").strip()
        locked = user == "llama-swarm" and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        locked = locked and int(status["CapBnd"], 16) == 0
        # A container may not go above its own bound.
        hard = "awk '/open files/ { print $5 }'"
        files, most = (int(booted.run(f"{hard} /proc/{one}/limits")) for one in (pid, 1))
        report.check(locked and files == min(65536, most), f"{node}: locked in as {user}, {files} files")


def an_update_goes_on_with_what_ran(booted, dist, ready, report):
    process = lambda: booted.run(f"systemctl show --property MainPID --value {NODES[-1]}")
    before = process()
    booted.run(f"dpkg --install /dist/{dist.deb.name}")
    wait_until(lambda: process() not in (before, "0\n") and booted.succeeds(ready), "the services run again")
    kept = booted.run("tail -n 1 /etc/llama-swarm/worker.env").strip()
    report.check(kept == "LLAMA_SWARM_SHARD_ID=0-7", f"an update restarts what ran, and keeps settings: {kept}")


def services_of_the_deb_make_a_swarm(dist, model, report):
    image = base("systemd", ("systemd", "systemd-sysv"))
    with system(image, dist, model, "/sbin/init", options=FOR_SYSTEMD) as booted:
        settle(booted)
        booted.run(f"dpkg --install /dist/{dist.deb.name}")
        units_are_sound(booted, report)
        active = [
            node for node in NODES if booted.succeeds(f"systemctl is-active {node} || systemctl is-enabled {node}")
        ]
        report.check(not active, f"the installation starts nothing {active or ''}")
        booted.run("systemctl start llama-swarm-worker")
        wait_until(lambda: booted.succeeds("systemctl is-failed llama-swarm-worker"), "a worker without a shard ends")
        result = booted.run("systemctl show --property ExecMainStatus,NRestarts --value llama-swarm-worker").split()
        report.check(sorted(result) == ["0", "2"], "a worker without a shard is not tried again and again")
        start_swarm(booted)
        ready = "llama-swarm health --service swarm.v1.InferenceService"
        took = wait_until(lambda: booted.succeeds(ready), "the swarm of services is ready")
        answer = booted.run(f"llama-swarm chat --temperature 0 --max-tokens 12 {shlex.quote(QUESTION)}")
        report.check(ANSWER in answer, f"after {took:.0f} s the gateway's service answers: {answer.strip()!r}")
        services_are_locked_in(booted, report)
        an_update_goes_on_with_what_ran(booted, dist, ready, report)
        booted.run(f"systemctl stop {' '.join(reversed(NODES))}")
        results = booted.run(f"systemctl show --property Result --value {' '.join(NODES)}").split()
        report.check(results == ["success"] * 4, f"stopped in order: {results}")
        booted.run("dpkg --purge llama-swarm")
        report.check(booted.succeeds("test ! -e /var/lib/llama-swarm"), "purge takes secret and keys along")


SCENARIOS = (
    the_installer_does_as_it_says,
    the_deb_comes_and_goes,
    the_rpm_comes_and_goes,
    services_of_the_deb_make_a_swarm,
)
