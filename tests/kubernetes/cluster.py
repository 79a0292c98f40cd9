"""A small Kubernetes cluster in containers, where no image registry and no ready cluster can be had.

    cluster.py up [--nodes 3] [--name NAME]     prints the kubeconfig's path
    cluster.py load IMAGE… [--name NAME]        brings images of the local engine to every node
    cluster.py down [--name NAME]

Every node is a container with an engine of its own, kubelet and kube-proxy; the first one has the control plane too. The
programs are those that build.sh makes from Debian's sources. Names and volumes come from small stand-ins (names.sh,
system.yaml), network policies are put in force by policies.py. For tests: everybody who reaches the API server and
knows the token is admin.

Needs Linux, a Docker engine that may run privileged containers, root for debootstrap, and kubectl.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# For all scripts here: they import this one first.
sys.path.insert(0, str(ROOT / "tests/python"))
from running import Failure, docker, run, wait_until

# Newer clients try something else first, to which this cluster does not answer.
for name in ("REMOTE_COMMAND", "PORT_FORWARD"):
    os.environ.setdefault(f"KUBECTL_{name}_WEBSOCKETS", "false")

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama-swarm-kubernetes"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "pause")
SUITE = "bookworm"
PACKAGES = (
    "ca-certificates,curl,conntrack,containernetworking-plugins,dnsmasq-base,docker.io,ebtables,etcd-server,ethtool,"
    "iproute2,ipset,iptables,kmod,kubernetes-client,mount,openssl,procps,socat"
)
NODE_IMAGE = "llama-swarm-test/kubernetes-node"
PAUSE_IMAGE = "llama-swarm-test/pause:local"
NAMES_IMAGE = "llama-swarm-test/names:local"
LABEL = "llama-swarm.test.cluster"
DNS = "10.96.0.10"
# For a node and its engine to be there, and for what is done on it.
BOUND = 240.0
# What --privileged gives, less the one capability that the engine itself may be without.
PRIVILEGES = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--device-cgroup-rule", "a *:* rwm"),
    *(word for option in ("seccomp", "apparmor", "systempaths") for word in ("--security-opt", f"{option}=unconfined")),
)
# Of each size on each node: enough for all claims of the local overlay with spares, wherever its pods are put.
VOLUMES = {"small": 20, "large": 4}


class Cluster:
    def __init__(self, name, nodes=3):
        self.name, self.folder = name, CACHE / name
        self.nodes = [f"node-{number}" for number in range(1, nodes + 1)]
        self.kubeconfig = self.folder / "kubeconfig"

    def container(self, node):
        return f"{self.name}-{node}"

    def kubectl(self, *arguments, bound=BOUND, **options):
        return run("kubectl", "--kubeconfig", self.kubeconfig, *arguments, bound=bound, **options)

    def on(self, node, *command, **options):
        return docker("exec", "-i", self.container(node), *command, bound=BOUND, **options)

    def up(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        prepare_programs()
        prepare_images()
        prefix = self._make_network().rsplit(".", 1)[0]
        token = secrets.token_hex(16)
        for index, node in enumerate(self.nodes, 1):
            self._start(node, index, prefix, token)
        self._write_kubeconfig(f"{prefix}.2", token)
        self.load(PAUSE_IMAGE)
        self.load(NAMES_IMAGE, nodes=self.nodes[:1])
        wait_until(self._nodes_are_ready, "all nodes are ready", bound=BOUND)
        self._prepare_system()

    def _make_network(self):
        """Nodes have fixed addresses, which needs a subnet that was named; the engine says which one is free."""
        create = ("network", "create", "--label", f"{LABEL}={self.name}")
        docker(*create, self.name)
        subnet = json.loads(docker("network", "inspect", self.name))[0]["IPAM"]["Config"][0]["Subnet"]
        docker("network", "rm", self.name)
        docker(*create, "--subnet", subnet, self.name)
        return subnet

    def _start(self, node, index, prefix, token):
        variables = {
            "CONTROL": f"{prefix}.2",
            "PREFIX": prefix,
            "TOKEN": token,
            "INDEX": index,
            "NODES": len(self.nodes),
            "DNS": DNS,
        }
        docker(
            *("run", "--detach", "--cgroupns", "private", "--hostname", node, *PRIVILEGES),
            *("--name", self.container(node), "--label", f"{LABEL}={self.name}"),
            *("--network", self.name, "--ip", f"{prefix}.{index + 1}"),
            *("--volume", "/var/lib/docker", "--volume", "/var/lib/kubelet", "--tmpfs", "/run", "--tmpfs", "/tmp"),
            *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
            *(NODE_IMAGE, "/node-start.sh", "control" if index == 1 else "worker"),
        )

    def _write_kubeconfig(self, address, token):
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "it",
                            "cluster": {"server": f"https://{address}:6443", "insecure-skip-tls-verify": True},
                        }
                    ],
                    "users": [{"name": "it", "user": {"token": token}}],
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                    "current-context": "it",
                }
            )
        )
        self.kubeconfig.chmod(0o600)

    def _nodes_are_ready(self):
        try:
            nodes = json.loads(self.kubectl("get", "nodes", "--output", "json"))["items"]
        except Failure:
            return False
        ready = [c["status"] for node in nodes for c in node["status"]["conditions"] if c["type"] == "Ready"]
        return ready == ["True"] * len(self.nodes)

    def _prepare_system(self):
        volumes = []
        for node in self.nodes:
            names = [f"{size}-{number}" for size, count in VOLUMES.items() for number in range(count)]
            self.on(node, "mkdir", "-p", *(f"/var/lib/kubelet/disk/{name}" for name in names))
            volumes += [volume(node, name) for name in names]
        self.kubectl("apply", "--filename", HERE / "system.yaml")
        self._apply_volumes(volumes)
        # What newer clusters do by themselves; policies choose namespaces by it.
        for namespace in ("kube-system", "default"):
            self.kubectl("label", "namespace", namespace, f"kubernetes.io/metadata.name={namespace}", "--overwrite")
        self.kubectl("--namespace", "kube-system", "wait", "pod/names", "--for=condition=Ready", "--timeout=120s")

    def _apply_volumes(self, volumes):
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": volumes})
        self.kubectl("apply", "--filename", "-", input=text)

    def renew_volumes(self):
        """Those whose claims are gone, empty: they are kept as they were otherwise, and nobody gets them."""
        items = json.loads(self.kubectl("get", "persistentvolumes", "--output", "json"))["items"]
        names = [item["metadata"]["name"] for item in items if item["status"].get("phase") == "Released"]
        again = []
        for node in self.nodes:
            own = [name.removeprefix(f"{node}-") for name in names if name.startswith(f"{node}-")]
            if own:
                folders = " ".join(f"/var/lib/kubelet/disk/{name}" for name in own)
                self.on(node, "sh", "-c", f"rm -rf {folders}; mkdir -p {folders}")
            again += [volume(node, name) for name in own]
        if names:
            self.kubectl("delete", "persistentvolumes", *names)
            self._apply_volumes(again)

    def load(self, *images, nodes=None):
        for node in nodes or self.nodes:
            wait_until(lambda node=node: self._has_engine(node), f"the engine of {node} answers", bound=BOUND)
            with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
                self.on(node, "docker", "load", stdin=saved.stdout)

    def _has_engine(self, node):
        try:
            return bool(self.on(node, "docker", "info"))
        except Failure:
            state = docker("inspect", "--format", "{{.State.Running}}", self.container(node)).strip()
            if state != "true":
                raise
            return False

    def lose(self, node):
        """All its processes at once, as when the power fails."""
        docker("kill", self.container(node))

    def regain(self, node):
        docker("start", self.container(node))

    def down(self):
        own = ("--quiet", "--filter", f"label={LABEL}={self.name}")
        if containers := docker("ps", "--all", *own).split():
            docker("rm", "--force", "--volumes", *containers, bound=BOUND)
        if networks := docker("network", "ls", *own).split():
            docker("network", "rm", *networks)
        shutil.rmtree(self.folder, ignore_errors=True)


def volume(node, name):
    size = "16Mi" if name.startswith("small") else "4Gi"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{node}-{name}"},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "disk",
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": f"/var/lib/kubelet/disk/{name}"},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
                    ]
                }
            },
        },
    }


def prepare_programs():
    if not all((CACHE / "bin" / program).exists() for program in PROGRAMS):
        run(HERE / "build.sh", CACHE / "bin", bound=3600)


def prepare_images():
    """The node's image, and the two that its pods need: one to hold their network, one for names."""
    if subprocess.run(["docker", "image", "inspect", f"{NODE_IMAGE}:base"], capture_output=True).returncode:
        import_base()
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        for program in PROGRAMS:
            shutil.copy(CACHE / "bin" / program, context)
        for script in ("node-start.sh", "names.sh", "runc.sh"):
            shutil.copy(HERE / script, context)
        (context / "node").write_text(
            f"FROM {NODE_IMAGE}:base\n"
            f"COPY {' '.join(PROGRAMS[:-1])} /usr/local/bin/\n"
            "COPY runc.sh /usr/local/sbin/runc\n"
            "COPY node-start.sh names.sh /\n"
        )
        (context / "pause.file").write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
        docker("build", "--quiet", "--tag", NODE_IMAGE, "--file", context / "node", context, bound=1800)
        docker("build", "--quiet", "--tag", PAUSE_IMAGE, "--file", context / "pause.file", context, bound=1800)
    docker("tag", NODE_IMAGE, NAMES_IMAGE)


def import_base():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root, bound=1800)
        pack = ["tar", "-C", root, "--exclude=./var/cache/apt", "--exclude=./dev/*", "-c", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
            docker("import", "-", f"{NODE_IMAGE}:base", stdin=packed.stdout, bound=600)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("up", "load", "down"))
    parser.add_argument("images", nargs="*")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--name", default="llama-swarm-cluster")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.name, arguments.nodes)
    try:
        if arguments.command == "up":
            cluster.up()
            print(cluster.kubeconfig)
        elif arguments.command == "load":
            cluster.load(*arguments.images)
        else:
            cluster.down()
    except (Failure, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
