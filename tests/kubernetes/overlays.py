"""What is applied: the overlays, the chart, and what docs/kubernetes.md says how to make of them."""

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import yaml

from cluster import ROOT
from older import for_server
from running import Failure
from scene import minor_version

try:
    import helm_python
except ImportError:
    helm_python = None

# In the manifests, and what an update makes of it.
TAG, NEXT_TAG = "0.1.0", "0.1.0-next"
# Kinds that only an operator knows, who is not here.
FOREIGN = ("PodMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute")
# Where it lies in the images that .ci/cluster makes, tagged with -model.
MODEL = "/model/model.gguf"
REQUESTS = {"cpu": "100m", "memory": "128Mi"}
WORKERS_OF_ALL_SHARDS = {"kind": "StatefulSet", "labelSelector": "app.kubernetes.io/component=shard-worker"}


def rendered(scene, overlay):
    return [item for item in yaml.safe_load_all(scene.cluster.kubectl("kustomize", overlay)) if item]


def from_chart(values, release, namespace):
    """By Helm's own library, as tests/python/manifests.py has it."""
    if helm_python is None:
        raise Failure("no helm-python-sdk: the chart cannot be rendered (tests/python/manifests-requirements.txt)")
    with helm_python.Chart.load(ROOT / "k8s/chart") as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=release, namespace=namespace)
    return [o for name, text in files.items() if name.endswith(".yaml") for o in yaml.safe_load_all(text) if o]


def listed(objects):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def known(objects):
    return [item for item in objects if item["kind"] not in FOREIGN]


def apply(scene, objects, waits=False):
    """Gives what had to be said otherwise. `waits`: between two replicas of a shard, see older.py."""
    differences = for_server(objects, minor_version(scene), waits)
    scene.applied = known(objects)
    scene.kubectl("apply", "--filename", "-", input=listed(scene.applied))
    return differences


def accepted(scene, name, objects):
    """By the API server, which makes none of it."""
    for_server(objects, minor_version(scene))
    told = scene.kubectl("apply", "--dry-run=server", "--filename", "-", input=listed(known(objects)))
    count, left = len(known(objects)), len(objects) - len(known(objects))
    scene.report.check(
        len(told.splitlines()) == count,
        f"the API server accepts the {count} objects of {name}; {left} of kinds that it does not know were left out",
    )


@contextmanager
def copy_of_manifests():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        shutil.copytree(ROOT / "k8s", folder, dirs_exist_ok=True)
        yield folder


def add_spares(folder):
    overlay = folder / "overlays/local/kustomization.yaml"
    change(overlay, "components:\n", "components:\n  - ../../components/spare-replicas\n")


def add_update(folder):
    """Other tags, and one more setting for all."""
    for file in ("overlays/local/kustomization.yaml", "base/kustomization.yaml"):
        change(folder / file, f"newTag: {TAG}", f"newTag: {NEXT_TAG}")
    settings = folder / "base/swarm.env"
    settings.write_text(settings.read_text() + "OTEL_BSP_SCHEDULE_DELAY=4000\n")


def change(file, old, new):
    text = file.read_text()
    if old not in text:
        raise Failure(f"{file.name} has no {old!r}: the manifests have changed, and this test has not")
    file.write_text(text.replace(old, new))


def small_production(folder, namespace, tag):
    """k8s/overlays/production, with images and requests that this cluster has."""
    images = [
        {"name": f"registry.example.com/llama-swarm/{name}", "newName": f"llama-swarm/{name}", "newTag": own_tag}
        for name, own_tag in (
            ("rendezvous", tag),
            ("shard-worker", tag),
            ("gateway", tag),
            ("llama-swarm", f"{tag}-model"),
        )
    ]
    targets = (
        WORKERS_OF_ALL_SHARDS,
        {"kind": "StatefulSet", "name": "share"},
        {"kind": "Deployment", "name": "gateway"},
    )
    patches = [patch(target, "resources/requests", REQUESTS) for target in targets]
    patches.append(patch(targets[1], "args", ["share", MODEL]))
    fields = {"namespace": namespace, "resources": ["../production"], "images": images, "patches": patches}
    return made(folder, fields)


def prefixed_base(folder, namespace, prefix, shards, tag):
    """k8s/base under other names and with fewer shards, as docs/kubernetes.md says how."""
    change(folder / "base/swarm.env", "LLAMA_SWARM_TOTAL_SHARDS=8", f"LLAMA_SWARM_TOTAL_SHARDS={shards}")
    for shard in range(shards, 8):
        change(folder / "base/shards/kustomization.yaml", f'  - "{shard}"\n', "")
        shutil.rmtree(folder / f"base/shards/{shard}")
    share = {"kind": "StatefulSet", "name": "share"}
    fields = {
        "namespace": namespace,
        "namePrefix": prefix,
        "resources": ["../../base"],
        "images": [{"name": "llama-swarm/llama-swarm", "newTag": f"{tag}-model"}],
        "patches": [
            patch(WORKERS_OF_ALL_SHARDS, "resources/requests", REQUESTS),
            patch(share, "args", ["share", MODEL]),
        ],
    }
    return made(folder, fields)


def patch(target, field, value):
    path = f"/spec/template/spec/containers/0/{field}"
    return {"target": target, "patch": yaml.safe_dump([{"op": "replace", "path": path, "value": value}])}


def made(folder, fields):
    overlay = folder / "overlays/made"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(fields))
    return overlay


def chart_values(shards, tag):
    return {
        "shards": shards,
        "model": MODEL,
        "image": {"tag": tag},
        "share": {"tag": f"{tag}-model"},
        "worker": {"resources": {"requests": REQUESTS, "limits": {"memory": "1Gi"}}},
        "gateway": {"autoscaling": {"enabled": False, "min": 1}},
    }


# All that the chart can do, for a server that only looks at it.
ALL_OF_THE_CHART = {
    "shards": 4,
    "replicas": 2,
    "storageClass": "disk",
    "worker": {"placement": "required", "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "mesh": "istio",
    "tracing": {"namespace": "observability"},
    "gateway": {"hosts": ["llama.example.com"]},
    "routes": {"enabled": True, "parents": [{"name": "public", "namespace": "gateways"}]},
    "monitoring": {"enabled": True},
}
