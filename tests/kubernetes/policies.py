"""Puts a cluster's network policies in force, where no network plugin does: by iptables on every node.

Follows pods, namespaces and policies every half second. Understands what NetworkPolicy of networking.k8s.io/v1 can say but
for named ports and ranges of ports. Packets between a node and its own pods (probes) are let through, as the
specification wants.
"""

import ipaddress
import json
import subprocess
import threading

from cluster import Failure

PERIOD = 0.5
CHAIN = "POLICIES"


class Policies(threading.Thread):
    """`cluster` is what cluster.py makes."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.over, self.first = cluster, threading.Event(), threading.Event()
        self.written = {}

    def run(self):
        while not self.over.is_set():
            if self.enforce():
                self.first.set()
            self.over.wait(PERIOD)

    def stop(self):
        self.over.set()
        self.join(60)

    def lift(self):
        for node in self.cluster.nodes:
            self.cluster.on(node, "sh", "-c", f"iptables -D FORWARD -j {CHAIN} 2>&- || true")

    def enforce(self):
        """Whether the rules are in force on all nodes. A node that is down is tried again."""
        kinds = "pods,namespaces,networkpolicies"
        try:
            items = json.loads(self.cluster.kubectl("get", kinds, "--all-namespaces", "--output", "json"))["items"]
        except (Failure, subprocess.TimeoutExpired):
            return False
        return all([self._write(node, rules_of(items)) for node in self.cluster.nodes])

    def _write(self, node, rules):
        if self.written.get(node) == rules:
            return True
        hook = f"iptables -C FORWARD -j {CHAIN} 2>&- || iptables -I FORWARD -j {CHAIN}"
        try:
            self.cluster.on(node, "iptables-restore", "--noflush", input=rules)
            self.cluster.on(node, "sh", "-c", hook)
        except (Failure, subprocess.TimeoutExpired):
            self.written.pop(node, None)
            return False
        self.written[node] = rules
        return True


def rules_of(items):
    """Input of iptables-restore: chains that drop what no policy allows."""
    world = World(items)
    chains, lines = [CHAIN], [f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
    for number, pod in enumerate(world.pods):
        for direction, own in (("Ingress", "-d"), ("Egress", "-s")):
            policies = [p for p in world.policies if p.selects(pod, direction)]
            if not policies:
                continue
            chain = f"{direction}-{number}"
            chains.append(chain)
            lines.append(f"-A {CHAIN} {own} {pod.address} -j {chain}")
            lines += sorted(
                {f"-A {chain} {match} -j RETURN" for p in policies for match in p.matches(direction, world)}
            )
            lines.append(f"-A {chain} -j DROP")
    return "\n".join(["*filter", *(f":{chain} - [0:0]" for chain in chains), *lines, "COMMIT", ""])


class World:
    def __init__(self, items):
        def of_kind(kind):
            return [item for item in items if item["kind"] == kind]

        self.namespaces = {n["metadata"]["name"]: n["metadata"].get("labels", {}) for n in of_kind("Namespace")}
        pods = [Pod(item) for item in of_kind("Pod")]
        self.pods = sorted((pod for pod in pods if pod.address and not pod.on_host), key=lambda pod: pod.address)
        self.policies = [Policy(item) for item in of_kind("NetworkPolicy")]


class Pod:
    def __init__(self, item):
        self.namespace, self.labels = item["metadata"]["namespace"], item["metadata"].get("labels", {})
        over = item["status"]["phase"] in ("Succeeded", "Failed")
        self.address = None if over else item["status"].get("podIP")
        self.on_host = item["spec"].get("hostNetwork", False)


class Policy:
    def __init__(self, item):
        self.namespace, self.spec = item["metadata"]["namespace"], item["spec"]
        self.types = self.spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in self.spec else [])]

    def selects(self, pod, direction):
        here = pod.namespace == self.namespace and direction in self.types
        return here and chosen(self.spec.get("podSelector", {}), pod.labels)

    def matches(self, direction, world):
        """What iptables calls the allowed peers and ports."""
        key, peers, flag = ("ingress", "from", "-s") if direction == "Ingress" else ("egress", "to", "-d")
        for rule in self.spec.get(key, []):
            for address in self._addresses(rule.get(peers), world):
                for port in self._ports(rule.get("ports")):
                    yield f"{flag} {address} {port}".strip()

    def _addresses(self, peers, world):
        if not peers:
            return ["0.0.0.0/0"]
        found = []
        for peer in peers:
            if "ipBlock" in peer:
                found += block_without(peer["ipBlock"])
                continue
            for pod in world.pods:
                if "namespaceSelector" in peer:
                    near = chosen(peer["namespaceSelector"], world.namespaces.get(pod.namespace, {}))
                else:
                    near = pod.namespace == self.namespace
                if near and chosen(peer.get("podSelector", {}), pod.labels):
                    found.append(pod.address)
        return found

    @staticmethod
    def _ports(ports):
        if not ports:
            return [""]
        return [
            f"-p {p.get('protocol', 'TCP').lower()}" + (f" --dport {p['port']}" if "port" in p else "") for p in ports
        ]


def block_without(block):
    parts = [ipaddress.ip_network(block["cidr"])]
    for hole in map(ipaddress.ip_network, block.get("except", [])):
        parts = [piece for part in parts for piece in (part.address_exclude(hole) if hole.subnet_of(part) else [part])]
    return [str(part) for part in parts]


def chosen(selector, labels):
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(expressed(e, labels) for e in selector.get("matchExpressions", []))


def expressed(expression, labels):
    key, operator, values = expression["key"], expression["operator"], expression.get("values", [])
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[operator]
