"""A request is one trace in the collector's log."""

import os
from collections import Counter

from container_tests.images import COLLECTOR
from container_tests.swarm import WORKERS
from observing import QUESTION, SHARDS
from running import wait_until

# Of one request: the gateway's generation and each hop's session have two phases.
SPANS = {"POST /v1/chat/completions": 1, "generation": 1, "session": SHARDS}
SPANS |= dict.fromkeys(("prefill", "decode"), 1 + SHARDS)


def the_collector_shows_one_trace(scene):
    if not scene.swarm.collector:
        text = "traces in the collector's log: neither --collector nor otelcol, see tests/collector/build.sh"
        print(f"\n!!! SKIPPED: {text}\n", flush=True)
        if os.environ.get("CI", "") not in ("", "0", "false"):
            scene.report.check(False, text)
        return
    trace = os.urandom(16).hex()
    scene.swarm.ask(QUESTION, 4, trace)
    involved = [COLLECTOR, "gateway", *WORKERS]
    expected = sum(SPANS.values())
    wait_until(lambda: len(spans_in_log(scene.swarm, trace)) >= expected, f"{expected} spans in the log", involved)
    spans = spans_in_log(scene.swarm, trace)
    scene.report.check(
        Counter(kind(span) for span in spans) == SPANS and sources(spans) == wanted_sources(scene),
        f"the collector's log has the request's {len(spans)} spans, each by the node it is of",
        involved,
    )


def spans_in_log(swarm, trace):
    """Name, resource and attributes of the spans, as the collector's debug exporter prints them."""
    resource, spans = {}, []
    for line in swarm.compose("logs", "--no-color", COLLECTOR).splitlines():
        if "ResourceTraces #" in line:
            resource = pairs(line)
        elif f" {trace} " in line:
            # Compose puts the container's name before it.
            name, _, rest = line.partition(" | ")[2].partition(f" {trace} ")
            spans.append((name, resource, pairs(rest)))
    return spans


def kind(span):
    """The span's name; that of a generation says what was asked of which model."""
    name, _, attributes = span
    return "generation" if "gen_ai.operation.name" in attributes else name


def pairs(text):
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def sources(spans):
    """Who sent how many spans, and for the sessions also which shard they are of."""
    counted = Counter()
    for name, resource, attributes in spans:
        sender = (resource["service.name"], resource["service.instance.id"])
        counted[sender] += 1
        if name == "session":
            counted[(*sender, attributes["llama_swarm.worker"], attributes["llama_swarm.shards"])] += 1
    return counted


def wanted_sources(scene):
    wanted = Counter({("gateway", scene.observers.inside["gateway"].last().peer): 4})
    for shard, (peer,) in enumerate(scene.peers):
        wanted[("shard-worker", peer)] = 3
        wanted[("shard-worker", peer, peer, str(shard))] = 1
    return wanted
