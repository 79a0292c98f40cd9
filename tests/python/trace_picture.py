"""Draws a trace, as a person would look at it: what ran when, and where its time went.

usage: trace_picture.py SPANS PICTURE    SPANS: what traces.py printed
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LETTER = 0.0047
PHASES = {"prefill": "#4c78a8", "decode": "#72b7b2"}


def is_generation(span):
    """Its name says what was asked of which model."""
    return "gen_ai.operation.name" in span["attributes"]


def spans_of_last_trace(path):
    spans = [json.loads(line) for line in open(path) if line.startswith("{")]
    generations = [span for span in spans if is_generation(span)]
    trace = max(generations, key=lambda span: span["start_ns"])["trace"]
    return [span for span in spans if span["trace"] == trace]


def times(span):
    told = span["attributes"]
    parts = [(name, told.get(f"llama_swarm.{name}_ms")) for name in ("compute", "queue", "send", "network")]
    return ", ".join(f"{name} {value:.1f} ms" for name, value in parts if value is not None)


def fitting(phase, share):
    """As much as fits into a bar that takes this share of the picture's width, by the width of a letter."""
    whole = ": ".join(filter(None, [phase["name"], times(phase)]))
    for text in (whole, whole.split(",")[0], phase["name"]):
        if len(text) * LETTER < share:
            return text
    return ""


def label(span):
    told = span["attributes"]
    if span["name"] == "session":
        return f"session · shard {told['llama_swarm.shards']} · worker …{told['llama_swarm.worker'][-6:]}"
    return span["name"]


def main(path, picture):
    spans = spans_of_last_trace(path)
    inside = {}
    for span in spans:
        if span["name"] in PHASES:
            inside.setdefault(span["parent"], []).append(span)
    rows = [span for span in spans if span["name"] not in PHASES]
    order = lambda span: 1 if is_generation(span) else 2 if span["name"] == "session" else 0
    rows.sort(key=lambda span: (order(span), span["attributes"].get("llama_swarm.shards", "")))
    origin = min(span["start_ns"] for span in rows)
    at = lambda ns: (ns - origin) / 1e6

    figure, axes = plt.subplots(figsize=(14, 0.62 * len(rows) + 1.6))
    end = max(at(span["end_ns"]) for span in rows)
    for place, span in enumerate(rows):
        length = at(span["end_ns"]) - at(span["start_ns"])
        axes.barh(place, length, left=at(span["start_ns"]), height=0.72, color="#d9d9d9", edgecolor="#888")
        for phase in inside.get(span["id"], []):
            length = at(phase["end_ns"]) - at(phase["start_ns"])
            axes.barh(place, length, left=at(phase["start_ns"]), height=0.44, color=PHASES[phase["name"]])
            text = fitting(phase, length / end)
            axes.text(at(phase["start_ns"]) + end / 300, place, text, va="center", fontsize=6.5, color="white")
        for event in span["events"]:
            axes.plot(at(event["time_ns"]), place, "v", color="#c00", markersize=9)
            axes.annotate(event["name"], (at(event["time_ns"]), place - 0.45), fontsize=8, color="#c00", ha="center")
    told = next(span for span in rows if is_generation(span))["attributes"]
    axes.set_title(
        f"{told['gen_ai.request.model']}: {told['gen_ai.usage.input_tokens']} tokens in, "
        f"{told['gen_ai.usage.output_tokens']} out, first token after {told['llama_swarm.first_token_ms']:.0f} ms",
        loc="left",
    )
    axes.set_yticks(range(len(rows)), [label(span) for span in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.grid(axis="x", color="#eee")
    axes.set_axisbelow(True)
    axes.set_xlim(0, end * 1.01)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


main(*sys.argv[1:])
