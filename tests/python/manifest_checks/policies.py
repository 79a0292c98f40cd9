"""Network policies: who may reach whom."""

from itertools import product

from manifest_checks.objects import selects
from manifest_checks.programs import expected_ports


def allows(policies, way, pod, other, port):
    """Whether policies let one pod receive from (ingress) or send to (egress) another pod of the namespace."""
    applying = [p for p in policies if way.title() in p["policyTypes"] and selects(p["podSelector"], pod)]
    if not applying:
        return True
    peers = "from" if way == "ingress" else "to"
    for rule in (rule for policy in applying for rule in policy.get(way) or []):
        here = [peer for peer in rule.get(peers, []) if "podSelector" in peer and "namespaceSelector" not in peer]
        peer_fits = peers not in rule or any(selects(peer["podSelector"], other) for peer in here)
        ports = [(p.get("protocol", "TCP"), p["port"]) for p in rule.get("ports", [])]
        if peer_fits and ("ports" not in rule or port in ports):
            return True
    return False


def to_other_namespaces(policies, way, pod):
    """Ports that a pod may use with some pod of another namespace, or with anybody."""
    peers = "from" if way == "ingress" else "to"
    rules = (rule for p in policies if selects(p["podSelector"], pod) for rule in p.get(way) or [])
    outside = (rule for rule in rules if peers not in rule or any("namespaceSelector" in peer for peer in rule[peers]))
    return {(p.get("protocol", "TCP"), p["port"]) for rule in outside for p in rule.get("ports", [])}


def reaches_hubs(policies, pod):
    """Whether a pod may ask by HTTPS outside of the cluster."""
    rules = (rule for p in policies if selects(p["podSelector"], pod) for rule in p.get("egress") or [])
    outside = (rule for rule in rules if any("ipBlock" in peer for peer in rule.get("to", [])))
    return any(port.get("port") == 443 for rule in outside for port in rule.get("ports", []))


def hub_faults(overlay, policies):
    """Who fetches from a hub may ask it, and nobody else; somebody has what comes from the swarm."""
    for workload in overlay.workloads:
        fetches = any(model.startswith("hf:") for model in workload.models)
        if fetches != reaches_hubs(policies, workload.labels):
            yield f"{workload.name}: {'cannot reach' if fetches else 'may reach'} hubs"
        from_swarm = any(model.startswith("swarm:") for model in workload.models)
        if from_swarm and not any(other.service == "share" for other in overlay.workloads):
            yield f"{workload.name}: its model comes from the swarm, where nobody has it"


def policy_faults(overlay, programs):
    policies = [policy["spec"] for policy in overlay.of("NetworkPolicy")]
    yield from hub_faults(overlay, policies)
    pods = [(w.name, w.labels, expected_ports(programs[w.service], w.environment)) for w in overlay.workloads]
    for name, labels, ports in pods:
        own = [p for p in policies if selects(p["podSelector"], labels)]
        closed = {way for p in own for way in p["policyTypes"] if not p.get(way.lower())}
        if closed != {"Ingress", "Egress"}:
            yield f"{name}: what no policy allows is open"
        if ("UDP", 53) not in to_other_namespaces(policies, "egress", labels):
            yield f"{name}: cannot ask for names"
        for port in (port for port, use in ports.items() if use != "swarm"):
            if port not in to_other_namespaces(policies, "ingress", labels):
                yield f"{name}: nobody can scrape or ask {port[1]}"
    for (source, from_labels, _), (target, to_labels, ports) in product(pods, pods):
        for port, use in ports.items():
            passes = allows(policies, "egress", from_labels, to_labels, port) and allows(
                policies, "ingress", to_labels, from_labels, port
            )
            # Inside the swarm everything is libp2p; whatever else a node serves is for people.
            if passes != (use == "swarm"):
                yield f"{source} → {target} {port[1]}/{port[0]}: {'open' if passes else 'closed'}"
    for policy in overlay.of("NetworkPolicy"):
        selected = [ports for _, labels, ports in pods if selects(policy["spec"]["podSelector"], labels)]
        if not selected:
            yield f"policy {policy['metadata']['name']} selects no pod"
        named = {
            (p.get("protocol", "TCP"), p["port"])
            for rule in policy["spec"].get("ingress") or []
            for p in rule.get("ports", [])
        }
        for protocol, port in named - {port for ports in selected for port in ports}:
            yield f"policy {policy['metadata']['name']} opens {port}/{protocol}, where nothing listens"
