"""Prints what the programs are made of, as a software bill of materials in CycloneDX 1.5 (JSON).

    python3 packaging/sbom.py --target x86_64-unknown-linux-gnu [--features a,b] > llama-swarm.cdx.json

Names, versions and licences are cargo's, checksums those of Cargo.lock: the same commit gives the same bytes. Like the
notices it lists what the programs need to run, and not what only tests and build scripts need. Only the standard
library.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What an archive holds.
PROGRAMS = ("shard-worker", "rendezvous", "gateway", "llama-swarm")


def cargo_metadata(target, features):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    command += ["--features", features] if features else []
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def checksums():
    """SHA-256 of each package as the registry has it, by name and version."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(one["name"], one["version"]): one["checksum"] for one in lock["package"] if "checksum" in one}


def needed(metadata):
    """Packages that the programs need to run, by id, each with the ids of those it needs itself."""
    normal = {
        node["id"]: sorted(d["pkg"] for d in node["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"]))
        for node in metadata["resolve"]["nodes"]
    }
    ours = set(metadata["workspace_members"])
    found, left = {}, [p["id"] for p in metadata["packages"] if p["id"] in ours and p["name"] in PROGRAMS]
    if len(left) != len(PROGRAMS):
        sys.exit(f"this is not the workspace of {', '.join(PROGRAMS)}")
    while left:
        if (one := left.pop()) not in found:
            found[one] = normal[one]
            left.extend(normal[one])
    return found


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version'].replace('+', '%2B')}"


def component(package, checksum):
    told = {
        "type": "application" if package["name"] in PROGRAMS else "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
    }
    if package["source"]:
        told["purl"] = reference(package)
    if licence := package["license"]:
        # Old packages write / for OR.
        told["licenses"] = [{"expression": licence.replace("/", " OR ")}]
    if checksum:
        told["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if repository := package["repository"]:
        told["externalReferences"] = [{"type": "vcs", "url": repository}]
    return told


def bill(metadata, sums, target, time):
    packages = {package["id"]: package for package in metadata["packages"]}
    found = needed(metadata)
    version = next(packages[one]["version"] for one in found if packages[one]["name"] == "llama-swarm")
    whole = f"llama-swarm-{version}-{target}"
    parts = [component(packages[one], sums.get((packages[one]["name"], packages[one]["version"]))) for one in found]
    needs = [
        {"ref": reference(packages[one]), "dependsOn": sorted({reference(packages[need]) for need in needs})}
        for one, needs in found.items()
    ]
    programs = sorted(reference(packages[one]) for one in found if packages[one]["name"] in PROGRAMS)
    content = {
        "components": sorted(parts, key=lambda part: part["bom-ref"]),
        "dependencies": sorted([*needs, {"ref": whole, "dependsOn": programs}], key=lambda need: need["ref"]),
    }
    # By the content, so that the same content has the same number.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([whole, time, content]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": whole, "name": "llama-swarm", "version": version},
        },
        **content,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, help="the system, as rustc names it")
    parser.add_argument("--features", default="", help="as for cargo build")
    options = parser.parse_args()
    time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    metadata = cargo_metadata(options.target, options.features)
    json.dump(bill(metadata, checksums(), options.target, time), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
