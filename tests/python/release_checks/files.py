"""What .ci/release made, looked at as files: checksums, order, and whether all of it tells the same."""

import functools
import gzip
import hashlib
import http.server
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path

from running import Failure, run

PROGRAMS = ("gateway", "llama-swarm", "rendezvous", "shard-worker")
KINDS = ("gateway", "rendezvous", "share", "worker")


class Dist:
    """The folder of a release with the files of one system: of Linux, or of Windows, which has a .zip alone."""

    def __init__(self, folder):
        self.folder = folder.resolve()
        self.is_windows = any(self.folder.glob("*.zip"))
        self.archive = self._one("*.zip" if self.is_windows else "*.tar.gz")
        if not self.is_windows:
            self.deb = self._one("*.deb")
            self.rpm = self._one("*.rpm")
        self.bill = self._one("*.cdx.json")
        self.top = self.archive.name.removesuffix(".zip").removesuffix(".tar.gz")

    def notices(self):
        """The licences of others, as the archive has them."""
        if self.is_windows:
            with zipfile.ZipFile(self.archive) as archive:
                return archive.read(f"{self.top}/THIRD-PARTY-NOTICES").decode()
        with tarfile.open(self.archive) as archive:
            return archive.extractfile(f"{self.top}/share/doc/llama-swarm/THIRD-PARTY-NOTICES").read().decode()

    def _one(self, pattern):
        found = sorted(self.folder.glob(pattern))
        if len(found) != 1:
            raise Failure(f"{self.folder} has {len(found)} {pattern}, not one: make it with .ci/release")
        return found[0]


def checksums_are_those_of_the_files(dist, report):
    told = dict(reversed(line.split("  ", 1)) for line in (dist.folder / "SHA256SUMS").read_text().splitlines())
    real = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in dist.folder.iterdir()
        if file.name != "SHA256SUMS"
    }
    report.check(told == real, f"SHA256SUMS has {len(told)} files, all there are, with their checksums")


def the_archive_says_nothing_of_who_made_it(dist, report):
    with gzip.open(dist.archive) as opened, tarfile.open(fileobj=opened) as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    head = dist.archive.read_bytes()[:10]
    # RFC 1952: flags, where a name would be told, and a time.
    report.check(head[3] == 0 and head[4:8] == bytes(4), "gzip tells neither name nor time")
    report.check(names == sorted(names, key=lambda name: name.split("/")), "members are in order")
    report.check({(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}, "owners are root, by number")
    report.check(len({m.mtime for m in members}) == 1, "all have one time")
    report.check({m.mode for m in members} <= {0o644, 0o755}, "modes are 644 and 755")
    report.check(all(name.split("/")[0] == dist.top for name in names), f"all is below {dist.top}")
    wanted = [f"bin/{name}" for name in PROGRAMS]
    wanted += [f"share/doc/llama-swarm/{name}" for name in ("LICENSE", "README.md", "THIRD-PARTY-NOTICES")]
    wanted += [f"lib/systemd/system/llama-swarm-{kind}.service" for kind in KINDS]
    wanted += [f"share/man/man1/llama-swarm-{command}.1" for command in ("up", "chat", "worker", "key-new")]
    missing = [name for name in wanted if f"{dist.top}/{name}" not in names]
    report.check(not missing, f"programs, licences, units and man pages are in it; missing: {missing or 'none'}")


def the_zip_says_nothing_of_who_made_it(dist, report):
    with zipfile.ZipFile(dist.archive) as archive:
        members = archive.infolist()
        heads = {name: archive.read(f"{dist.top}/{name}.exe")[:2] for name in PROGRAMS}
    names = [member.filename for member in members]
    report.check(names == sorted(names, key=lambda name: name.split("/")), "members are in order")
    report.check(len({member.date_time for member in members}) == 1, "all have one time")
    report.check({m.external_attr >> 16 for m in members} <= {0o100644, 0o100755}, "modes are 644 and 755")
    report.check(all(name.split("/")[0] == dist.top for name in names), f"all is below {dist.top}")
    report.check(set(heads.values()) == {b"MZ"}, "the programs are Windows'")
    wanted = ("LICENSE", "README.md", "THIRD-PARTY-NOTICES", "docs/nodes.md", "llama-swarm.completions.ps1")
    missing = [name for name in wanted if f"{dist.top}/{name}" not in names]
    report.check(not missing, f"programs, licences and docs are in it; missing: {missing or 'none'}")


def completions_are_scripts(dist, report):
    """Each shell reads its own without a complaint; a shell that is not here is left out, and that is told."""
    with tarfile.open(dist.archive) as archive:
        places = {
            "bash": "bash-completion/completions/llama-swarm",
            "zsh": "zsh/site-functions/_llama-swarm",
            "fish": "fish/vendor_completions.d/llama-swarm.fish",
        }
        scripts = {shell: archive.extractfile(f"{dist.top}/share/{place}").read() for shell, place in places.items()}
    for shell, script in scripts.items():
        try:
            parsed = subprocess.run([shell, "-n"], input=script, capture_output=True, timeout=60)
        except FileNotFoundError:
            print(f"SKIPPED: no {shell}: its completions were NOT read")
            continue
        good = parsed.returncode == 0 and b"shard-id" in script
        report.check(good, f"{shell} reads its completions, and they know flags {parsed.stderr.decode()[:200]}")


def the_bill_lists_what_the_notices_list(dist, report):
    listed = set(re.findall(r"^(\S+) (\d\S*): ", dist.notices().split("\n====")[0], re.MULTILINE))
    bill = json.loads(dist.bill.read_text())
    others = [part for part in bill["components"] if "purl" in part]
    report.check(
        bool(listed) and {(p["name"], p["version"]) for p in others} == listed, f"{len(others)} packages of others"
    )
    whole = all(part.get("licenses") and part.get("hashes") for part in others)
    report.check(whole, "each has a licence and a checksum")
    known = {part["bom-ref"] for part in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    refs = {need["ref"] for need in bill["dependencies"]} | {r for n in bill["dependencies"] for r in n["dependsOn"]}
    report.check(refs == known, "who needs whom names these and no others")


def both_packages_hold_the_same(dist, report):
    """The .rpm is held against the .deb, whose services are started."""
    deb = {}
    listing = subprocess.run(["dpkg-deb", "--fsys-tarfile", dist.deb], stdout=subprocess.PIPE, check=True, timeout=120)
    with tarfile.open(fileobj=io.BytesIO(listing.stdout)) as archive:
        for member in archive:
            if member.isfile():
                content = archive.extractfile(member).read()
                deb[member.name.removeprefix(".")] = hashlib.sha256(content).hexdigest(), oct(member.mode)
    try:
        dump = run("rpm", "-qp", "--nosignature", "--dump", dist.rpm)
    except FileNotFoundError:
        print("SKIPPED: no rpm: the .rpm was NOT looked at")
        return
    rpm, owners, config = {}, set(), set()
    for line in dump.splitlines():
        path, _, _, digest, mode, owner, group, is_config, *_ = line.split(" ")
        owners.add((owner, group))
        if mode.startswith("0100"):
            rpm[path] = digest, oct(int(mode, 8) & 0o7777)
            config |= {path} if is_config == "1" else set()
    report.check(owners == {("root", "root")}, "the .rpm's files are root's")
    report.check(config == {f"/etc/llama-swarm/{kind}.env" for kind in KINDS}, "its settings are kept by an update")
    # Where documents and zsh's functions go differs.
    same = [path for path in deb if "/doc/" not in path and "/zsh/" not in path]
    other = [path for path in same if rpm.get(path) != deb[path]]
    report.check(len(same) > 10 and not other, f"{len(same)} files are the same in both {other or ''}")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def the_installer_fetches(dist, report):
    """From a server, to a folder of its own on this machine."""
    if not (shutil.which("curl") or shutil.which("wget")):
        print("SKIPPED: neither curl nor wget: install.sh fetched NOTHING")
        return
    serve = functools.partial(Quiet, directory=dist.folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server, tempfile.TemporaryDirectory() as prefix:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        script = dist.folder / "install.sh"
        run("sh", script, "--from", f"{url}/", "--prefix", prefix)
        told = run(f"{prefix}/bin/llama-swarm", "--version")
        report.check(told.split()[1] in dist.top, f"install.sh fetches from a server: {told.strip()}")
        absent = subprocess.run(
            ["sh", script, "--from", f"{url}/no", "--prefix", prefix], capture_output=True, text=True
        )
        good = absent.returncode == 1 and "cannot fetch" in absent.stderr
        report.check(good, f"what is not there: {absent.stderr.strip().splitlines()[-1]}")
        run("sh", script, "--uninstall", "--prefix", prefix)
        report.check(not list(Path(prefix).rglob("*llama*")), "and takes it away again")
        server.shutdown()


SCENARIOS = (
    checksums_are_those_of_the_files,
    the_archive_says_nothing_of_who_made_it,
    completions_are_scripts,
    the_bill_lists_what_the_notices_list,
    both_packages_hold_the_same,
)
FOR_WINDOWS = (
    checksums_are_those_of_the_files,
    the_zip_says_nothing_of_who_made_it,
    the_bill_lists_what_the_notices_list,
)
