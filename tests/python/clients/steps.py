"""What the clients' scripts share: the gateway's address and model, and steps that are told one by one.

The model is small and answers at random, so a step looks at the form of an answer. Only what a grammar holds is sure.
"""

import json
import sys
import time
import traceback
import urllib.request

URL = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else sys.exit(f"usage: {sys.argv[0]} http://host:port")
BASE = f"{URL}/v1"
MODEL = json.load(urllib.request.urlopen(f"{BASE}/models", timeout=10))["data"][0]["id"]
QUESTION = "Hi"
# The first question of a client has no limit, as clients set none; later ones this, where a client takes it: a small
# model may go on until its context is full.
SHORT = 64

STEPS = []


def step(work):
    STEPS.append(work)
    return work


def run_steps():
    """Runs all of them, also after one has failed, and leaves with 1 if any did."""
    failed = 0
    for work in STEPS:
        name, since = work.__name__.replace("_", " "), time.monotonic()
        try:
            work()
            print(f"ok: {name} ({time.monotonic() - since:.1f} s)", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAULT: {name}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc(limit=-3)
    print(f"{len(STEPS) - failed} passed, {failed} failed")
    sys.exit(failed > 0)
