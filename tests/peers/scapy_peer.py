"""The peers of a gateway that runs on files, played by scapy.

    scapy_peer.py make FOLDER    writes the files that the gateway reads
    scapy_peer.py check FOLDER   checks the files that it wrote, and prints how many packets it opened and sealed
"""

import json
import sys
from pathlib import Path

from scapy.layers.inet import UDP
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Ether
from scapy.packet import Raw, raw
from scapy.utils import PcapWriter, rdpcap

from association import ROUNDS, association, forwarded, inner, without_udp

MACS = {"outside": "02:00:00:00:00:01", "inside": "02:00:00:00:00:02", "host": "02:00:00:00:00:03"}


def sequence(case, turn):
    return case["sequence"] + 1 + turn


def make(folder, cases):
    files = {name: PcapWriter(str(folder / f"{name}-in.pcap"), linktype=1) for name in MACS}

    def put(port, packet):
        files[port].write(Ether(src="02:00:00:00:00:99", dst=MACS[port]) / packet)

    # Round by round, so that the packets of all SAs are interleaved.
    for turn in range(ROUNDS):
        for index, case in enumerate(cases):
            extra = 16 * ((index + turn) % 8)
            sa = association(case, "in", sequence(case, turn), extra)
            plain = inner(case, "in", turn)
            # Padding follows the end according to the packet's own length.
            packet = sa.encrypt(plain / Raw(bytes(max(0, case["tfc"] - len(plain)))))
            if case["udp"]:
                # Over IPv4, scapy 2.5 sets the UDP length to that of the header.
                packet[UDP].len = len(packet[UDP])
            put("outside", packet)
            put("inside" if case["mode"] == "tunnel" else "host", inner(case, "out", turn))
    for file in files.values():
        file.close()


def same(found, expected, name):
    assert raw(found) == raw(expected), f"{name}:\n{found.show(dump=True)}\nexpected:\n{expected.show(dump=True)}"


def check_opened(folder, cases):
    count = 0
    for port, mode, router in [("inside", "tunnel", forwarded), ("host", "transport", lambda packet: packet)]:
        found = rdpcap(str(folder / f"{port}-out.pcap"))
        turns = [(case, turn) for turn in range(ROUNDS) for case in cases if case["mode"] == mode]
        wanted = {raw(router(inner(case, "in", turn))): (case["name"], turn) for case, turn in turns}
        assert len(wanted) == len(turns), "packets that cannot be told apart"
        # Flows have no order among one another.
        last = {}
        for frame in found:
            name, turn = wanted.pop(raw(frame.payload), (None, 0))
            assert name, f"not wanted, or once more:\n{frame.show(dump=True)}"
            assert last.get(name, -1) < turn, f"{name} in {turn} came late"
            last[name] = turn
        assert not wanted, f"packets did not come out of {port}: {sorted(wanted.values())}"
        count += len(found)
    return count


def check_sealed(folder, cases):
    by_spi = {case["spi_out"]: case for case in cases}
    turns = dict.fromkeys(by_spi, 0)
    for frame in rdpcap(str(folder / "outside-out.pcap")):
        packet = frame.payload
        case = by_spi[packet[ESP].spi]
        turn = turns[packet[ESP].spi]
        turns[packet[ESP].spi] += 1
        what = f"{case['name']} out {turn}"
        assert (packet.src, packet.dst) == (case["gateway"], case["peer"]), what
        assert packet.haslayer(UDP) == case["udp"], what
        number = sequence(case, turn)
        assert packet[ESP].seq == number & 0xFFFFFFFF, what
        if case["udp"]:
            packet = without_udp(packet)
        wanted = inner(case, "out", turn)
        found = association(case, "out", number).decrypt(packet)
        if case["tfc"]:
            assert len(found) == max(len(wanted), case["tfc"]), what
            found = found.__class__(raw(found)[:len(wanted)])
        same(found, forwarded(wanted) if case["mode"] == "tunnel" else wanted, what)
    missing = [case["name"] for case in cases if turns[case["spi_out"]] != ROUNDS]
    assert not missing, f"packets are missing of {missing}"
    return sum(turns.values())


def main(command, folder):
    folder = Path(folder)
    cases = json.loads((folder / "cases.json").read_text())
    if command == "make":
        make(folder, cases)
    else:
        print(check_opened(folder, cases), check_sealed(folder, cases))


main(*sys.argv[1:])
