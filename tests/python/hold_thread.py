"""Holds one thread of a process, as a device that does not answer would: the others run on.

    python hold_thread.py

Reads lines: `hold PID NAME` stops the thread of that name and prints `held`, `release` lets it go and prints
`released`; at the end of the input it is let go as well. Needs Linux, and may trace the process (ptrace).
"""

import ctypes
import os
import sys
from pathlib import Path

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
ALL_THREADS = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def hold(pid, name):
    names = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    thread = next(thread for thread, named in names.items() if named == name)
    ptrace(SEIZE, thread)
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, ALL_THREADS)
    return thread


def main():
    held = None
    for line in sys.stdin:
        match line.split():
            case ["hold", pid, name]:
                held = hold(pid, name)
                print("held", flush=True)
            case ["release"] if held:
                ptrace(DETACH, held)
                held = None
                print("released", flush=True)
            case _:
                raise SystemExit(f"what is {line!r}?")


main()
