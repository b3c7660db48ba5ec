"""The peers of a gateway in a VLAN, whose ESP comes and goes in IP fragments, played by scapy.

    fragments.py make FOLDER    writes the files that the gateway reads
    fragments.py check FOLDER   checks the files that it wrote, and prints how many packets it opened and sealed
"""

import json
import sys
from pathlib import Path

from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw, raw
from scapy.utils import PcapWriter, rdpcap

from association import association, forwarded, header, without_udp

MACS = {"outside": "02:00:00:00:00:01", "inside": "02:00:00:00:00:02"}
STATION = "02:00:00:00:00:99"
# The VLANs of the port outside, and the priority of its frames.
VLANS, PRIORITY = (7, 100), 5
# The most bytes of an outer packet of the gateway.
MTU = 1280
# Bytes of data of a packet in each round: one is cut, and one goes whole.
LENGTHS = [1400, 300]
# The most bytes of payload of the peers' fragments in each round, and how they come.
CUTS = [(1000, 1), (200, -1)]


def inner(case, way, turn):
    ends = (case["terminal"], case["inside"]) if way == "in" else (case["inside"], case["terminal"])
    data = bytes((at // 8 + turn) % 256 for at in range(LENGTHS[turn]))
    packet = header(*ends) / UDP(sport=5000, dport=6000) / Raw(data)
    return packet.__class__(raw(packet))


def pieces(packet, size, number):
    """Cuts a packet to fragments with `size` bytes of payload."""
    if packet.version == 4:
        packet.id = number
        return fragment(packet, size)
    payload, size = raw(packet.payload), size - size % 8
    rest = range(0, len(payload), size)
    fields = [{"offset": at // 8, "m": int(at + size < len(payload))} for at in rest]
    ends = {"src": packet.src, "dst": packet.dst}
    cut = [Raw(payload[at:at + size]) for at in rest]
    return [IPv6(**ends) / IPv6ExtHdrFragment(nh=packet.nh, id=number, **f) / part for f, part in zip(fields, cut)]


def refused(case):
    """Packets from inside that do not go on: too long for a tunnel without outer fragments, and at their last hop."""
    ends = (case["inside"], case["terminal"])
    long = header(*ends, **({} if ":" in ends[0] else {"flags": "DF"})) / UDP() / Raw(bytes(1400))
    last = header(*ends, **({"hlim": 1} if ":" in ends[0] else {"ttl": 1})) / UDP() / Raw(bytes(60))
    return [packet.__class__(raw(packet)) for packet in (long, last)]


def make(folder, cases, plain):
    files = {name: PcapWriter(str(folder / f"{name}-in.pcap"), linktype=1) for name in MACS}

    def put(port, packet):
        frame = Ether(src=STATION, dst=MACS[port])
        if port == "outside":
            frame = frame / Dot1AD(vlan=VLANS[0]) / Dot1Q(vlan=VLANS[1])
        files[port].write(frame / packet)

    number = 0
    for turn, (size, step) in enumerate(CUTS):
        for case in cases:
            number += 1
            packet = association(case, "in", 1 + turn).encrypt(inner(case, "in", turn))
            if case["udp"]:
                # Over IPv4, scapy 2.5 sets the UDP length to that of the header.
                packet[UDP].len = len(packet[UDP])
            cut = pieces(packet.__class__(raw(packet)), size, number)
            assert len(cut) > 1
            for piece in cut[::step]:
                put("outside", piece)
            put("inside", inner(case, "out", turn))
    for case in plain:
        for packet in refused(case):
            put("inside", packet)
    for file in files.values():
        file.close()


def joined(packets):
    """Yields whole packets, of which each piece came behind the one before."""
    parts = []
    for packet in packets:
        is_v4 = packet.version == 4
        piece = packet if is_v4 else packet.getlayer(IPv6ExtHdrFragment)
        if piece is None or (is_v4 and not packet.flags.MF and not packet.frag):
            yield packet
            continue
        offset, more = (packet.frag, packet.flags.MF) if is_v4 else (piece.offset, piece.m)
        assert len(packet) <= MTU and 8 * offset == len(b"".join(parts)), packet.summary()
        parts.append(raw(piece.payload))
        if more:
            continue
        whole = header(packet.src, packet.dst) / Raw(b"".join(parts))
        if is_v4:
            assert not packet.flags.DF, packet.summary()
            whole.proto = packet.proto
        else:
            whole.nh = piece.nh
        parts = []
        yield whole.__class__(raw(whole))
    assert not parts


def packets(folder, port):
    for frame in rdpcap(str(folder / f"{port}-out.pcap")):
        assert frame.src == MACS[port], frame.summary()
        packet = frame.payload
        for kind, vlan in zip((Dot1AD, Dot1Q), VLANS) if port == "outside" else ():
            assert (type(packet), packet.vlan, packet.prio) == (kind, vlan, PRIORITY), frame.summary()
            packet = packet.payload
        yield packet


def check_opened(folder, cases, plain):
    found = list(packets(folder, "inside"))
    wanted = [raw(forwarded(inner(case, "in", turn))) for turn in range(len(CUTS)) for case in cases]
    assert list(map(raw, found[:len(wanted)])) == wanted
    errors = [(error, packet) for case in plain for error, packet in zip((too_big, time_exceeded), refused(case))]
    answers = found[len(wanted):]
    assert len(answers) == len(errors), answers
    for answer, (expected, packet) in zip(answers, errors):
        message = expected(answer)
        assert (answer.dst, raw(message.payload)[:28]) == (packet.src, raw(packet)[:28]), answer.summary()
    return len(wanted)


def too_big(answer):
    if answer.version == 4:
        assert (answer[ICMP].type, answer[ICMP].code) == (3, 4) and 1200 < answer[ICMP].nexthopmtu < MTU
        return answer[ICMP]
    # RFC 8200 §5: no less than this.
    assert answer[ICMPv6PacketTooBig].mtu == 1280
    return answer[ICMPv6PacketTooBig]


def time_exceeded(answer):
    if answer.version == 4:
        assert (answer[ICMP].type, answer[ICMP].code) == (11, 0)
        return answer[ICMP]
    assert answer[ICMPv6TimeExceeded].code == 0
    return answer[ICMPv6TimeExceeded]


def check_sealed(folder, cases):
    by_spi = {case["spi_out"]: case for case in cases}
    turns = dict.fromkeys(by_spi, 0)
    for packet in joined(packets(folder, "outside")):
        case = by_spi[packet[ESP].spi]
        turn = turns[packet[ESP].spi]
        turns[packet[ESP].spi] += 1
        assert packet[ESP].seq == 1 + turn, case["name"]
        if case["udp"]:
            packet = without_udp(packet)
        found = association(case, "out", 1 + turn).decrypt(packet)
        assert raw(found) == raw(forwarded(inner(case, "out", turn))), f"{case['name']} {turn}"
    assert set(turns.values()) == {len(LENGTHS)}, turns
    return sum(turns.values())


def main(command, folder):
    folder = Path(folder)
    world = json.loads((folder / "world.json").read_text())
    if command == "make":
        make(folder, **world)
    else:
        print(check_opened(folder, **world), check_sealed(folder, world["cases"]))


main(*sys.argv[1:])
