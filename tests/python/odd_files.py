"""What is said of odd files: those that real models come in, and those that are none.

    python odd_files.py --bin-dir target/release [--only WORDS]

Writes them one by one, asks `llama-swarm doctor` and `plan` of each, and starts a worker with some. Each must be
accepted, or refused with words that name the cause and what helps; and only of a file that is cut short or altered may
it be said that another copy helps. Prints a line for each, and what is said of those that differ; exits with 1 when one
differs that is not known to, or is known to and does not any more.

Only the standard library. Needs Linux.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from odd_kinds import broken, keys, stored, texts
from odd_kinds.case import REFUSED, SOUND

BOUND = 60
# Nobody in particular.
ORDINARY_USER = 65534
GOOD, BAD = "is a sound model file", "✗"
COLOURS = {"NO_COLOR": "1"}


class Asked:
    """The program, and a folder for what it keeps."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.cache = folder / "cache"
        self.cache.mkdir(mode=0o777)
        self.cache.chmod(0o777)

    def run(self, case, *arguments):
        user = {"user": ORDINARY_USER, "group": ORDINARY_USER} if case.ordinary and os.geteuid() == 0 else {}
        binary = self.binary
        if user:
            # Where it lies others may not come.
            binary = shutil.copy(binary, self.folder)
        command = [binary, *arguments, "--cache-dir", self.cache]
        environment = os.environ | COLOURS | {"HOME": str(self.cache)}
        return subprocess.run(command, capture_output=True, text=True, timeout=BOUND, env=environment, **user)

    def doctor(self, case, path):
        """Of what it finds only the model is looked at: there are no nodes."""
        found = self.run(case, "doctor", "--model", path, "--total-shards", "2", "--rendezvous", "").stdout
        section = re.search(r"^The model\n((?:  .*\n?)*)", found, re.MULTILINE)
        said = section[1] if section else found
        return SOUND if GOOD in said and BAD not in said else REFUSED, said

    def plan(self, case, path):
        done = self.run(case, "plan", path, "--total-shards", "2")
        return REFUSED if done.returncode else SOUND, done.stderr

    def worker(self, case, path):
        """Until it has loaded, or has ended because it cannot."""
        command = [self.binary, "worker", "--model", path, "--shard-id", "0-1", "--total-shards", "2"]
        command += ["--cache-dir", self.cache, "--identity", self.folder / "identity", "--grpc-listen", "127.0.0.1:0"]
        command += ["--kv-memory", "1MiB", "--threads", "1"]
        said = []
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | COLOURS) as worker:
            bound = threading.Timer(BOUND, worker.kill)
            bound.start()
            try:
                for line in worker.stderr:
                    if "shards loaded" in line:
                        return SOUND, ""
                    said += [line] if "INFO" not in line else []
            finally:
                bound.cancel()
                worker.terminate()
                worker.wait(BOUND)
        return REFUSED, "".join(said)


def examine(binary, case):
    """What differs, and all that was said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        asked = Asked(binary, folder)
        (folder / "files").mkdir()
        path = case.make(folder / "files")
        verdict, said = asked.doctor(case, path)
        of_doctor, differs = verdict, [("doctor", case.differs(verdict, said), said)]
        ways = [("plan", asked.plan), ("worker", asked.worker)]
        for name, ask in ways if case.worker else ways[:1]:
            verdict, text = ask(case, path)
            expected = of_another(case, name)
            differs.append((name, expected.differs(verdict, text, expected.verdict == REFUSED), text))
        return of_doctor, differs


def of_another(case, name):
    """What those must say who need no text: nothing of what keeps it from being made, nor doubts about it."""
    if name == "worker" and case.weights:
        return case._replace(verdict=REFUSED, words=case.weights)
    return case._replace(verdict=SOUND) if case.text else case


def show(differs):
    for who, what, said in differs:
        if what:
            print(f"    {who}: {what}")
            for line in said.strip().splitlines()[-6:]:
                print(f"        {line.strip()[:500]}")


def outcome(case, differs):
    """How a case went, by a word."""
    wrong = [said for _, what, said in differs if what]
    if not wrong:
        return "no longer at fault: take its mark away" if case.fault else "ok"
    # Those who take what they should refuse say nothing.
    known = [case.fault in said for said in wrong if said.strip()]
    return "known" if case.fault and known and all(known) else "DIFFERS"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    binary = (options.bin_dir / "llama-swarm").resolve()
    counts, verdicts = {}, {}
    chosen = [case for kind in (stored, keys, texts, broken) for case in kind.cases() if options.only in case.name]
    for case in chosen:
        verdict, differs = examine(binary, case)
        word = outcome(case, differs)
        counts[word] = counts.get(word, 0) + 1
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        print(f"{word:8} {verdict:8} {case.name}")
        show(differs)
    print(f"{len(chosen)} files, {sum(case.worker for case in chosen)} with a worker:", end=" ")
    print(", ".join(f"{count} {word}" for word, count in (verdicts | counts).items()))
    return int(set(counts) - {"ok", "known"} != set())


if __name__ == "__main__":
    sys.exit(main())
