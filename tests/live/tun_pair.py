"""Two TUN devices, each in a network namespace of its own, joined like the ends of a cable: one receives what the other sends.

    tun_pair.py SPACE DEVICE SPACE DEVICE    prints "ready" once both are up, and runs until it is killed
"""

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
# Packets that are taken from one end before the other one has its turn.
BURST = 64

libc = ctypes.CDLL(None, use_errno=True)


def tun(space, device):
    with open(f"/run/netns/{space}") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {space}")
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", device, "up"], check=True)
    return end


def carry(source, target):
    for _ in range(BURST):
        try:
            os.write(target, os.read(source, 65536))
        except BlockingIOError:
            return


a, b = tun(*sys.argv[1:3]), tun(*sys.argv[3:5])
print("ready", flush=True)
other = {a: b, b: a}
while True:
    for end in select.select(other, [], [])[0]:
        carry(end, other[end])
