"""Images carry what licences ask of those who pass binaries on."""

import tempfile
from pathlib import Path

from container_tests.engine import ROOT
from running import docker

IMAGES = ("shard-worker", "rendezvous", "gateway", "llama-swarm")
FOLDER = "/usr/share/doc/llama-swarm"
# A few that are in every program.
PACKAGES = ("tokio", "tonic", "rustls", "libp2p")


def images_carry_notices(scene):
    images = scene.swarm.images
    lacking = [name for name in IMAGES if not carries_notices(f"{images.prefix}/{name}:{images.tag}")]
    scene.report.check(
        not lacking, f"the images carry our licence and the notices of others {', '.join(lacking)}".strip()
    )


def carries_notices(image):
    """No image has a shell: the files are taken out of a container that never runs."""
    container = docker("create", image).strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            docker("cp", f"{container}:{FOLDER}/.", folder)
            licence, notices = (Path(folder, name).read_text() for name in ("LICENSE", "THIRD-PARTY-NOTICES"))
    finally:
        docker("rm", container)
    return licence == (ROOT / "LICENSE").read_text() and all(f"\n{package} " in notices for package in PACKAGES)
