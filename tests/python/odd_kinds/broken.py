"""Files that are cut short or altered, that are something else, and models in several files."""

import gzip
import io
import json
import os
import struct
import zipfile

from .case import NOT_AGAIN, REFUSED, SOUND, Case, refused, sound
from .writing import I32, TEXT, U16, U32, tiny

# Where something else helps than another file, which is said as well.
FITS = {"never": (NOT_AGAIN,)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0a" * 32 + b"\nsize 105454432\n"


def cut():
    file = tiny()
    whole, (head, entries) = file.bytes(), file.header()
    short = ("truncated", "bytes are missing")
    for name, length in (
        ("to nothing", 0),
        ("in the first word", 3),
        ("behind the first word", 4),
        ("behind the version", 8),
        ("in the first key", 30),
        ("in the vocabulary", entries // 2),
        ("behind the entries", entries),
        ("in the tensors' names", entries + 60),
        ("where weights begin", len(head)),
        ("in the middle", len(whole) // 2),
        ("by a byte", len(whole) - 1),
    ):
        yield refused(
            f"cut {name}", whole[:length], *short, damage=True, worker=name in ("in the middle", "to nothing")
        )
    for name, at in (("key", 24), ("count of tokens", whole.index(b"tokenizer.ggml.tokens") + 29)):
        altered = whole[:at] + struct.pack("<Q", 1 << 60) + whole[at + 8 :]
        yield refused(f"a long {name}", altered, "more than", damage=True)
    for what in ("tensors", "entries"):
        many = file.having(counts={what: 1 << 40})
        yield refused(f"very many {what}", many, "number of", str(1 << 40), damage=True)
    name, other = b"blk.1.attn_q.weight", b"blk.0.attn_q.weight"
    yield refused(
        "a tensor that is there twice", whole.replace(name, other), "blk.0.attn_q.weight is there twice", damage=True
    )
    yield refused("a tensor without a name", whole.replace(name, b"\xff" * len(name)), "name is not UTF-8", damage=True)
    yield refused("lines that end otherwise", whole.replace(b"\n", b"\r\n"), damage=True)
    yield refused("a line in front", b"\n" + whole, "not a GGUF file", damage=True)
    fewer = file.having(counts={"entries": len(file.metadata) - 1})
    yield refused("an entry more than it says", fewer, "tensor", damage=True)
    yield refused("zeros in front", bytes(4096) + whole[4096:], "not a GGUF file", damage=True)
    yield refused("a file of zeros", bytes(1 << 16), "not a GGUF file", damage=True)
    unknown = whole.replace(b"general.name" + struct.pack("<I", TEXT), b"general.name" + struct.pack("<I", 77))
    yield refused("a value of no type", unknown, "general.name has unknown type 77", damage=True)


def versions():
    yield sound("version 2", tiny().having(version=2), worker=True)
    for version in (0, 1, 4):
        yield refused(f"version {version}", tiny().having(version=version), f"GGUF version {version} ", "2 or 3")
    yield refused("other byte order", tiny().having(order=">"), "little-endian", worker=True)


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return buffer.getvalue()


def something_else():
    heading = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    none = "not a GGUF file"
    page = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Entry not found</body></html>"
    yield refused("a web page", page, none, damage=True, worker=True)
    yield refused("what a hub answers", b'{"error": "Invalid username or password."}', none, damage=True)
    yield refused("a pointer of Git LFS", POINTER, none, "git lfs", damage=True)
    for name, content in (
        ("safetensors", struct.pack("<Q", len(heading)) + heading + bytes(8)),
        ("zip", zipped()),
        ("gzip", gzip.compress(tiny().bytes()[:4096])),
        ("GGML", b"tjgg" + struct.pack("<7I", 3, 32000, 4096, 256, 32, 32, 128) + bytes(64)),
    ):
        yield refused(f"a file of {name}", content, none, name, worker=name == "safetensors")

    def directory(folder):
        path = folder / "model.gguf"
        path.mkdir()
        return path

    yield Case("a directory", directory, REFUSED, ("is not a file", "name the .gguf file"), worker=True)
    nowhere = {"words": ("there is no file", "check the path")}
    yield Case("no file", lambda folder: folder / "none.gguf", REFUSED, **nowhere)

    def forbidden(folder):
        path = folder / "model.gguf"
        path.write_bytes(tiny().bytes())
        path.chmod(0)
        return path

    yield Case("no permission", forbidden, REFUSED, ("permission denied", "chmod"), ordinary=True, **FITS)

    def pipe(folder):
        path = folder / "model.gguf"
        os.mkfifo(path)
        return path

    yield Case("a pipe", pipe, REFUSED, ("is not a file",), worker=True)

    def blob(folder):
        path = folder / ("sha256-" + "0a" * 32)
        path.write_bytes(tiny().bytes())
        (folder / "model.gguf").symlink_to(path)
        return path

    yield Case("a file without an ending", blob, SOUND, worker=True)
    yield Case("a link to a file", lambda folder: blob(folder) and folder / "model.gguf", SOUND, worker=True)

    def dangling(folder):
        path = folder / "model.gguf"
        path.symlink_to(folder / "blob")
        return path

    yield Case("a link to nothing", dangling, REFUSED, **nowhere)


def parts(count=2, kind=(U16, U16, I32)):
    """The files that a model is split into, as gguf-split of llama.cpp writes them: the first has the entries."""
    file = tiny()
    names = list(file.tensors)
    share = -(-len(names) // count)
    for number in range(count):
        own = set(names[number * share : (number + 1) * share])
        entries = {"split.no": (kind[0], number), "split.count": (kind[1], count)}
        entries |= {"split.tensors.count": (kind[2], len(names))}
        if number:
            entries |= {key: None for key in file.metadata}
        yield file.having(entries, {name: None for name in names if name not in own})


def split(change=lambda files: None, named=1, count=2):
    """Writes a model in several files, and names one of them."""

    def write(folder):
        for number, part in enumerate(parts(count), 1):
            (folder / f"m-{number:05}-of-{count:05}.gguf").write_bytes(part.bytes())
        change(folder)
        return folder / f"m-{named:05}-of-{count:05}.gguf"

    return write


def pieces():
    """Bytes of one file in several, as some publish what is too large for a hub: they are joined with cat."""

    def piece(name, number):
        def write(folder):
            whole = tiny().bytes()
            path = folder / name
            path.write_bytes(whole[: len(whole) // 2] if number == 1 else whole[len(whole) // 2 :])
            return path

        return write

    for ending in (".part{0}of2", "-split-{1}"):
        for number in (1, 2):
            name = "m.Q6_K.gguf" + ending.format(number, "ab"[number - 1])
            yield Case(f"a piece called {name}", piece(name, number), REFUSED, ("join", "with cat"))


def several():
    first, second = "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"

    def swap(folder):
        (folder / first).rename(folder / "x")
        (folder / second).rename(folder / first)
        (folder / "x").rename(folder / second)

    def halve(folder):
        path = folder / second
        path.write_bytes(path.read_bytes()[:-1000])

    def replace(folder):
        (folder / second).write_bytes(tiny().bytes())

    def mixed(folder):
        (folder / second).write_bytes(list(parts(3))[1].bytes())

    yield Case("in two files", split(), SOUND, worker=True)
    yield Case("in three files, the last named", split(named=3, count=3), SOUND, worker=True)
    one = tiny().having({"split.no": (U32, 0), "split.count": (U32, 0), "split.tensors.count": (U32, 0)})
    yield sound("in two files that were joined", one)
    yield sound("in one file of one", tiny().having({"split.no": (U16, 0), "split.count": (U16, 1)}))
    yield refused("in files without numbers", tiny().having({"split.count": (U16, 2)}), "split.no is missing")
    missing = ("is not there", "put all of them into one folder")
    for number, name in ((1, second), (2, first)):
        gone = split(lambda folder, name=name: (folder / name).unlink(), number)
        who = f"the other of two files is missing, {number} named"
        yield Case(who, gone, REFUSED, (name, *missing), worker=number == 1, **FITS)
    words = ("its name must end in", "-00002-of-00002.gguf")
    yield Case("two files swapped", split(swap), REFUSED, words, **FITS)
    renamed = split(lambda folder: (folder / first).rename(folder / "m.gguf"))

    def other(folder):
        renamed(folder)
        return folder / "m.gguf"

    yield Case("a part by another name", other, REFUSED, ("must end in",), **FITS)
    yield Case("the second of two files cut", split(halve), REFUSED, (second, "bytes are missing"), damage=True)
    yield Case("another model as the second file", split(replace), REFUSED, (second, "split.count"), **FITS)
    yield Case("the second file of another model", split(mixed), REFUSED, (second, "split.count is 3"), **FITS)


def cases():
    yield from cut()
    yield from versions()
    yield from something_else()
    yield from several()
    yield from pieces()
