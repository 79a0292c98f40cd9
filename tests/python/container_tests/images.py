"""The images of the swarm and of the collector: built for one run, or given."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from container_tests.engine import LONG_BOUND, ROOT, remove_all, succeeds
from running import docker, note, run

# Bases that somebody has made before; the second name is the one under which --keep leaves them.
BASE_PREFIXES = ("llama-swarm", "llama-swarm-test")
SUITE = os.environ.get("SUITE", "bookworm")
LABEL = "llama-swarm.test"
COLLECTOR = "otel-collector"


class Images:
    """The four images, under names that nobody else uses; all that was built for them carries a label."""

    def __init__(self, run_name, bin_dir, keep):
        self.prefix, self.tag, self.keep = f"llama-swarm-test-{run_name}", run_name, keep
        self.bin_dir, self.label = bin_dir, f"{LABEL}={run_name}"
        self.bases = next((prefix for prefix in BASE_PREFIXES if self._bases_of(prefix)), None)

    @staticmethod
    def _base_names(prefix):
        return [f"{prefix}/base-{kind}:{SUITE}" for kind in ("build", "runtime")]

    def _bases_of(self, prefix):
        return succeeds("docker", "image", "inspect", *self._base_names(prefix))

    def build(self):
        note("building the images")
        variables = {
            "BIN_DIR": str(self.bin_dir),
            "PREFIX": self.prefix,
            "BASE_PREFIX": self.bases or self.prefix,
            "SUITE": SUITE,
            "LABEL": self.label,
        }
        run(ROOT / "docker/build-offline.sh", self.tag, bound=LONG_BOUND, env=os.environ | variables)

    def remove(self):
        # A build that was broken off leaves its container; containers take over their images' labels.
        remove_all(("ps", "--all", "--quiet", "--filter", f"label={self.label}"), ("rm", "--force"))
        if self.keep:
            self._keep()
            return
        named = ("images", "--format", "{{.Repository}}:{{.Tag}}", f"{self.prefix}/*")
        # Ends of build stages have no names.
        nameless = ("images", "--quiet", "--filter", "dangling=true", "--filter", f"label={self.label}")
        remove_all(named, ("rmi",))
        remove_all(nameless, ("rmi",))

    def _keep(self):
        if self.bases is None and self._bases_of(self.prefix):
            for own, kept in zip(self._base_names(self.prefix), self._base_names(BASE_PREFIXES[-1]), strict=True):
                docker("tag", own, kept)
        note(f"kept: images {self.prefix}/*:{self.tag}; docker image prune --all --filter label={self.label}")


@dataclass
class GivenImages:
    """Images that are there already, and stay."""

    prefix: str
    tag: str

    def build(self):
        for service in ("rendezvous", "shard-worker", "gateway", "llama-swarm"):
            docker("image", "inspect", f"{self.prefix}/{service}:{self.tag}")

    def remove(self):
        pass


@dataclass
class GivenCollector:
    """Docker fetches it if it is not there."""

    image: str

    def build(self):
        pass

    def remove(self):
        pass


class BuiltCollector:
    """The collector's program and nothing else, like the image that is published."""

    DOCKERFILE = 'FROM scratch\nCOPY otelcol /otelcol\nUSER 10001:10001\nENTRYPOINT ["/otelcol"]\n'

    def __init__(self, run_name, program):
        self.image, self.program = f"llama-swarm-test-{run_name}/{COLLECTOR}:{run_name}", program

    def build(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(self.program, Path(folder, "otelcol"))
            Path(folder, "Dockerfile").write_text(self.DOCKERFILE)
            docker("build", "--tag", self.image, folder)

    def remove(self):
        remove_all(("images", "--quiet", self.image), ("rmi",))


def find_collector(run_name, image):
    """None where there is none."""
    if image:
        return GivenCollector(image)
    program = os.environ.get("OTELCOL") or shutil.which("otelcol")
    return BuiltCollector(run_name, program) if program else None
