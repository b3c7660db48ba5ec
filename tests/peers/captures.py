"""The peers of a gateway between captures of every link type, played by scapy and Wireshark's tools.

    captures.py make FOLDER          writes the captures, and prints their names
    captures.py check FOLDER NAME... checks what the gateway made of each capture: NAME.up and NAME.down
"""

import subprocess
import sys
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Ether, Loopback
from scapy.packet import Raw, raw
from scapy.utils import PcapWriter, RawPcapReader

COUNT = 5
START = 1_700_000_000
SOURCE = "02:00:00:00:00:99"
COOKED = {"pkttype": 0, "lladdrtype": 1, "lladdrlen": 6, "src": bytes.fromhex("020000000099"), "proto": 0x800}
# The link types, their numbers, and what is before a packet.
LINK_TYPES = {
    "ethernet": (1, lambda mac: Ether(src=SOURCE, dst=mac)),
    "sll": (113, lambda _: CookedLinux(**COOKED)),
    "sll2": (276, lambda _: CookedLinuxV2(ifindex=3, **COOKED)),
    "raw": (101, lambda _: None),
    "ipv4": (228, lambda _: None),
    "null": (0, lambda _: Loopback(type=2)),
}
# Bytes of data that make a packet too long for its tunnel, so that it becomes two fragments.
LONG = 1580
# Which of a capture's packets arrive, if not all of them do.
ARRIVE = {"snapped": range(0), "truncated": range(COUNT - 1), "radio": [0, 2, 4]}


def association(way):
    spi, key = {"up": (0x1001, 0x11), "down": (0x2001, 0x22)}[way]
    ends = ("192.0.2.7", "203.0.113.1") if way == "up" else ("203.0.113.1", "192.0.2.7")
    header = IP(src=ends[0], dst=ends[1])
    return SecurityAssociation(ESP, spi=spi, crypt_algo="AES-GCM", crypt_key=bytes([key]) * 20, tunnel_header=header)


def inner(way, number, length=0):
    ends = ("10.98.0.7", "10.99.0.50") if way == "up" else ("10.99.0.50", "10.98.0.7")
    data = b"packet %d" % number + bytes(length)
    return IP(src=ends[0], dst=ends[1], ttl=9) / UDP(sport=5000, dport=6000) / Raw(data)


def make(folder):
    def write(way, name, link_type, header, length=0):
        mac = "02:00:00:00:00:01" if way == "up" else "02:00:00:00:00:02"
        sa = association("up")
        with PcapWriter(str(folder / f"{name}.{way}"), linktype=link_type, nano=True) as file:
            file.write_header(None)
            for number in range(COUNT):
                packet = sa.encrypt(inner("up", number), seq_num=number + 1) if way == "up" else inner(way, number, length)
                before = header(mac)
                packet = packet if before is None else before / packet
                file.write_packet(raw(packet), sec=START + number, usec=1000 * number)

    def tool(*arguments):
        subprocess.run(arguments, cwd=folder, check=True)

    for way in ("up", "down"):
        for name, (link_type, header) in LINK_TYPES.items():
            write(way, name, link_type, header)
        write(way, "long", *LINK_TYPES["raw"], LONG)
        tool("editcap", "-s", "40", f"ethernet.{way}", f"snapped.{way}")
        tool("editcap", "-F", "pcap", f"ethernet.{way}", f"whole.{way}")
        (folder / f"truncated.{way}").write_bytes((folder / f"whole.{way}").read_bytes()[:-20])
        # Each file one interface of its own, and each packet of a different link type.
        parts = []
        for number, name in enumerate(["sll", "ethernet", "raw", "sll2", "null"]):
            parts.append(f"part{number}.{way}")
            tool("editcap", "-r", f"{name}.{way}", parts[-1], str(number + 1))
        tool("mergecap", "-I", "none", "-w", f"mixed.{way}", *parts)
        for number in (1, 3):
            tool("editcap", "-T", "ieee-802-11", parts[number], f"radio-{parts[number]}")
            parts[number] = f"radio-{parts[number]}"
        tool("mergecap", "-I", "none", "-w", f"radio.{way}", *parts)
    return [*LINK_TYPES, "long", "snapped", "truncated", "mixed", "radio"]


def records(path):
    """Returns the time, in nanoseconds, and the packet of each frame of a capture."""
    for data, about in RawPcapReader(str(path)):
        if hasattr(about, "tsresol"):
            yield (about.tshigh << 32 | about.tslow) * 1_000_000_000 // about.tsresol, Ether(data)
        else:
            yield about.sec * 1_000_000_000 + about.usec * 1000, Ether(data)


def check(folder, name):
    arrive = ARRIVE.get(name, range(COUNT))
    for way in ("up", "down"):
        length = LONG if (name, way) == ("long", "down") else 0
        pieces = 2 if length else 1
        found = list(records(folder / f"{name}-{way}.pcapng"))
        assert len(found) == pieces * len(arrive), f"{name}: {len(found)} packets came out {way}"
        for index, number in enumerate(arrive):
            part = found[pieces * index:pieces * (index + 1)]
            packets = [frame[IP] if way == "up" else association("down").decrypt(frame[IP]) for _, frame in part]
            expected = IP(raw(inner(way, number, length)))
            ends = {(packet.src, packet.dst, packet.ttl) for packet in packets}
            assert ends == {(expected.src, expected.dst, expected.ttl - 1)}, f"{name} {way} {number}: {ends}"
            data = b"".join(raw(packet.payload) for packet in packets)
            assert data == raw(expected.payload), f"{name} {way} {number}: {packets}"
            times = {time for time, _ in part}
            assert times == {(START + number) * 1_000_000_000 + 1000 * number}, f"{name} {way} {number}: {times}"


if __name__ == "__main__":
    command, folder, *names = sys.argv[1:]
    if command == "make":
        print("\n".join(make(Path(folder))))
    else:
        for each in names:
            check(Path(folder), each)
        print(f"{len(names)} captures")
