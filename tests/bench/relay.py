#!/usr/bin/env python3
"""A cable that is not as it should be: frames come late, are lost, or have a bit flipped.

`Relay` stands between a node's cable and the bridge and hands frames on, each way. As a program it makes a device put its
own checksums into packets, and cut them itself, because nobody does it behind a relay:

    relay.py DEVICE
"""

import fcntl
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from array import array
from collections import deque

SIOCETHTOOL = 0x8946
# Sets of checksums for what is sent, segmentation of TCP and of all, and putting together what comes in.
STXCSUM, STSO, SGSO, SGRO = 0x17, 0x1F, 0x24, 0x2C
ALL_PROTOCOLS = 3
OUTGOING = 4
ETHERNET, IPV4, TCP, UDP = 14, 0x0800, 6, 17
# Where the checksum is in the header.
CHECKSUM = {TCP: 16, UDP: 6}
HEADER = {TCP: 20, UDP: 8}


def can_relay():
    """Whether this process may read and write frames."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError:
        return False
    return True


def without_offload(device):
    """What is sent over the device is as it would be on a cable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in (STXCSUM, STSO, SGSO, SGRO):
            value = array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(any_socket, SIOCETHTOOL, request)
            except OSError:
                # Some are fixed to off where others are.
                if command == STXCSUM:
                    raise


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_flipped_bit(frame, chance):
    """The frame with one bit of what is inside of TCP or UDP flipped, and a checksum that does not tell; or as it was."""
    if len(frame) < ETHERNET + 20 or struct.unpack("!H", frame[12:14])[0] != IPV4:
        return frame
    inside = frame[23]
    begin = ETHERNET + (frame[14] & 0xF) * 4
    end = ETHERNET + struct.unpack("!H", frame[16:18])[0]
    if inside not in CHECKSUM or end > len(frame) or begin + HEADER[inside] + 12 >= end:
        return frame
    changed = bytearray(frame)
    changed[chance.randrange(begin + HEADER[inside] + 12, end)] ^= 1 << chance.randrange(8)
    at = begin + CHECKSUM[inside]
    changed[at : at + 2] = b"\0\0"
    pseudo = bytes(frame[26:34]) + struct.pack("!BBH", 0, inside, end - begin)
    changed[at : at + 2] = struct.pack("!H", checksum(pseudo + bytes(changed[begin:end])) or 0xFFFF)
    return bytes(changed)


class Relay:
    """Hands frames on between `cable`, which is taken from the bridge, and the bridge, until `end`."""

    def __init__(self, cable, bridge, chance, delay=0.0, loss=0.0, flips=0.0):
        self.cable, self.bridge = cable, bridge
        self.chance, self.delay, self.loss, self.flips = random.Random(chance.random()), delay, loss, flips
        self.over = threading.Event()
        self.near, self.far = f"{cable}n", f"{cable}f"
        self.lost = self.flipped = self.passed = 0
        ip("link", "add", self.near, "type", "veth", "peer", "name", self.far)
        without_offload(self.near)
        ip("link", "set", self.far, "up")
        ip("link", "set", cable, "nomaster")
        ip("link", "set", self.near, "master", bridge, "up")
        self.ends = [self._open(cable), self._open(self.far)]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def end(self):
        self.over.set()
        self.thread.join()
        for end in self.ends:
            end.close()
        ip("link", "del", self.near)
        ip("link", "set", self.cable, "master", self.bridge)

    def _open(self, device):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        end.bind((device, 0))
        end.setblocking(False)
        return end

    def _run(self):
        under_way = deque()
        while not self.over.is_set():
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _, to, frame = under_way.popleft()
                self._send(to, frame)
            wait = min(0.1, under_way[0][0] - now) if under_way else 0.1
            for end in select.select(self.ends, [], [], wait)[0]:
                frame, (_, _, kind, *_) = end.recvfrom(65536)
                if kind != OUTGOING:
                    to = self.ends[1 - self.ends.index(end)]
                    self._take(under_way, to, frame)

    def _take(self, under_way, to, frame):
        if self.chance.random() < self.loss:
            self.lost += 1
            return
        if self.chance.random() < self.flips:
            changed = with_flipped_bit(frame, self.chance)
            self.flipped += changed != frame
            frame = changed
        under_way.append((time.monotonic() + self.delay, to, frame))

    def _send(self, to, frame):
        try:
            to.send(frame)
            self.passed += 1
        except OSError:
            # The queue is full, or the frame too large for a cable: as on one, it is lost.
            self.lost += 1


def ip(*words):
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    without_offload(sys.argv[1])
