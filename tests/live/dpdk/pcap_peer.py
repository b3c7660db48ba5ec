"""The peers of a gateway on files of DPDK's net_pcap, played by scapy. The gateway learns its neighbours by their own requests.

    pcap_peer.py make FOLDER    writes the files that the gateway reads
    pcap_peer.py check FOLDER   checks the files that it wrote, and prints how many packets it opened and sealed
"""

import json
import sys
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import raw
from scapy.utils import PcapWriter, rdpcap

from association import association, forwarded, inner, without_udp

# Packets of every case in each direction.
ROUNDS = 2
# MAC addresses that net_pcap gives its devices.
MACS = {"outside": "02:70:63:61:70:00", "inside": "02:70:63:61:70:01"}
STATION = "02:00:00:00:00:99"
# The gateway's addresses and those of its next hops.
ENDS = {
    "outside": [("203.0.113.1", "203.0.113.254"), ("2001:db8:1::1", "2001:db8:1::fe")],
    "inside": [("10.99.0.1", "10.99.0.7"), ("fd00:99::1", "fd00:99::7")],
}


def tags(vlan):
    """Returns the kinds and numbers of the tags of a VLAN: 802.1Q, or 802.1ad and 802.1Q."""
    return list(zip([Dot1AD, Dot1Q][-len(vlan) :], vlan))


def make(folder, cases, vlans):
    files = {name: PcapWriter(str(folder / f"{name}-in.pcap"), linktype=1) for name in MACS}

    def put(port, packet):
        frame = Ether(src=STATION, dst=MACS[port])
        for kind, number in tags(vlans[port]):
            frame /= kind(vlan=number)
        files[port].write(frame / packet)

    for port, ((own, hop), (own6, hop6)) in ENDS.items():
        put(port, ARP(op="who-has", hwsrc=STATION, psrc=hop, pdst=own))
        put(port, IPv6(src=hop6, dst=own6) / ICMPv6ND_NS(tgt=own6) / ICMPv6NDOptSrcLLAddr(lladdr=STATION))
    for turn in range(ROUNDS):
        for case in cases:
            packet = association(case, "in", 1 + turn).encrypt(inner(case, "in", turn))
            if case["udp"]:
                # Over IPv4, scapy 2.5 sets the UDP length to that of the header.
                packet[UDP].len = len(packet[UDP])
            put("outside", packet)
            put("inside", inner(case, "out", turn))
    for file in files.values():
        file.close()


def packets(folder, port, vlans):
    """Yields the IP packets that left by a port, without neighbour discovery."""
    for frame in rdpcap(str(folder / f"{port}-out.pcap")):
        assert frame.src == MACS[port], frame.summary()
        packet = frame.payload
        for kind, number in tags(vlans[port]):
            assert type(packet) is kind and packet.vlan == number, frame.summary()
            packet = packet.payload
        if isinstance(packet, (IP, IPv6)) and not (ICMPv6ND_NS in packet or ICMPv6ND_NA in packet):
            assert frame.dst == STATION, frame.summary()
            yield packet


def check_opened(folder, cases, vlans):
    found = sorted(map(raw, packets(folder, "inside", vlans)))
    wanted = sorted(raw(forwarded(inner(case, "in", turn))) for case in cases for turn in range(ROUNDS))
    assert found == wanted, f"{len(found)} packets came out, not the {len(wanted)} that went in"
    return len(found)


def check_sealed(folder, cases, vlans):
    by_spi = {case["spi_out"]: case for case in cases}
    turns = dict.fromkeys(by_spi, 0)
    for packet in packets(folder, "outside", vlans):
        case = by_spi[packet[ESP].spi]
        turn = turns[packet[ESP].spi]
        turns[packet[ESP].spi] += 1
        what = f"{case['name']} out {turn}"
        assert (packet.src, packet.dst) == (case["gateway"], case["peer"]), what
        assert packet.haslayer(UDP) == case["udp"], what
        assert packet[ESP].seq == 1 + turn, what
        if case["udp"]:
            packet = without_udp(packet)
        found = association(case, "out", 1 + turn).decrypt(packet)
        assert raw(found) == raw(forwarded(inner(case, "out", turn))), what
    assert set(turns.values()) == {ROUNDS}, turns
    return sum(turns.values())


def main(command, folder):
    folder = Path(folder)
    world = json.loads((folder / "world.json").read_text())
    if command == "make":
        make(folder, **world)
    else:
        print(check_opened(folder, **world), check_sealed(folder, **world))


main(*sys.argv[1:])
