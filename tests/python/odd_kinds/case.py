"""What a file is, and what must be said of it."""

from collections.abc import Callable
from typing import NamedTuple

SOUND, REFUSED = "sound", "refused"
# What only those are told whose file is not what it was when it was made.
FETCH_AGAIN = ("fetch it again", "get the file again")

NOT_AGAIN = "another copy would be the same"


class Case(NamedTuple):
    name: str
    # Writes the file into a folder, and says which path to name.
    make: Callable
    verdict: str
    # In what is said, whatever the case of its letters.
    words: tuple = ()
    never: tuple = ()
    # The file was cut short or altered, so another copy helps.
    damage: bool = False
    # Only gateways look at what is wrong: plan and workers take the file.
    text: bool = False
    # A worker is to load it too, or to refuse it.
    worker: bool = False
    # In what a worker says that refuses what is sound for those who look at no weights.
    weights: tuple = ()
    # What is said today where that is wrong: then nothing else may be.
    fault: str = ""
    # As an ordinary user, also where root asks: root may read everything.
    ordinary: bool = False

    def differs(self, verdict, said, names=True):
        """What of a verdict and its message is not as it should be; nothing is. Without names a message of one who does
        not look so close may say less, but nothing wrong."""
        lower = said.lower()
        if verdict != self.verdict:
            return f"{verdict}, must be {self.verdict}"
        if self.damage and NOT_AGAIN in lower:
            return f"says {NOT_AGAIN}"
        missing = [word for word in self.words if names and word.lower() not in lower]
        if missing:
            return f"does not say {missing}"
        wrong = [word for word in self.never if word.lower() in lower]
        again = [word for word in FETCH_AGAIN if word in lower]
        if wrong or (again and not self.damage):
            return f"says {wrong or again}"
        if self.damage and names and not again:
            return "does not say that another copy helps"
        return ""


def sound(name, file, *words, **more):
    return Case(name, writes(file), SOUND, words, **more)


def refused(name, file, *words, **more):
    return Case(name, writes(file), REFUSED, words, **more)


def writes(file):
    """A file's bytes, or what writes several, as what makes a case."""
    if callable(file):
        return file

    def write(folder):
        path = folder / "model.gguf"
        path.write_bytes(file if isinstance(file, bytes) else file.bytes())
        return path

    return write
