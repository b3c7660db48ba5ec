"""mip_terminal.py MOVES ADDRESS...: a mobile node of scapy. It registers each care-of address in turn through its ESP
tunnel, answers pings to its home address by a reverse tunnel, and moves on after a few of them. It ends when it has
moved so often and was not pinged for a second, prints what it has seen as JSON, and writes its Mobile IP messages to
mip.pcap."""

import hashlib
import hmac
import json
import select
import socket
import struct
import sys
import time

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ
from scapy.packet import raw
from scapy.utils import wrpcap

GATEWAY, AGENT, HOME = "192.0.2.1", "10.99.0.1", "10.97.0.7"
MOVES, ADDRESSES = int(sys.argv[1]), sys.argv[2:]
SPI, SECRET = 300, bytes(range(32))
# S, B, D, M, G, r, T, x: the care-of address is its own, and packets come back by the tunnel (RFC 5944 §3.3).
FLAGS = 0x20 | 0x02
# Pings between two moves.
STAY = 2

ESP_SOCKET = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ESP)
messages = []


def association(spi, byte, ends):
    return SecurityAssociation(
        ESP, spi=spi, crypt_algo="AES-GCM", crypt_key=bytes([byte]) * 20, tunnel_header=IP(src=ends[0], dst=ends[1])
    )


UP = association(0x1001, 0x11, ["0.0.0.0", GATEWAY])
DOWN = association(0x2001, 0x22, [GATEWAY, "0.0.0.0"])


def authenticator(covered):
    """The Mobile-Home Authentication Extension (RFC 5944 §3.5.2)."""
    head = struct.pack("!BBI", 32, 36, SPI)
    return head + hmac.new(SECRET, covered + head, hashlib.sha256).digest()


def send(packet, care_of):
    """Seals an IP packet, and sends it from the care-of address."""
    # IP_PKTINFO (ip(7)): any interface, the source address, and a field that only received packets have.
    info = struct.pack("@i4s4s", 0, socket.inet_aton(care_of), bytes(4))
    ESP_SOCKET.sendmsg([raw(UP.encrypt(packet)[ESP])], [(socket.IPPROTO_IP, 8, info)], 0, (GATEWAY, 0))


def register(care_of, identification):
    request = MobileIP() / MobileIPRRQ(
        flags=FLAGS, lifetime=300, homeaddr=HOME, haaddr=AGENT, coaddr=care_of, id=identification
    )
    message = raw(request)
    packet = IP(src=care_of, dst=AGENT) / UDP(sport=40000, dport=434) / (message + authenticator(message))
    packet = IP(raw(packet))
    messages.append(packet)
    send(packet, care_of)


def is_good(reply, identification):
    """Checks a registration reply and its authenticator."""
    message = raw(reply[MobileIP])
    fixed, extension = message[:20], message[20:]
    answer = reply[MobileIPRRP]
    return (
        (answer.code, answer.homeaddr, answer.haaddr) == (0, HOME, AGENT)
        and answer.id == identification
        and 0 < answer.lifetime <= 300
        and extension == authenticator(fixed)
    )


def pong(ping, care_of):
    """Answers a ping by the reverse tunnel."""
    answer = IP(src=HOME, dst=ping[IP].src) / ICMP(type=0, id=ping[ICMP].id, seq=ping[ICMP].seq) / ping[ICMP].payload
    send(IP(raw(IP(src=care_of, dst=AGENT) / answer)), care_of)


def now():
    """A timestamp of NTP (RFC 5944 §5.7.1)."""
    return int((time.time() + 2208988800) * (1 << 32)) & (1 << 64) - 1


seen = {"registered": 0, "denied": 0, "pings": 0}
moves, stayed, care_of = 0, STAY, None
asked, quiet_since = None, None
while True:
    if asked is None and stayed >= STAY and moves < MOVES:
        care_of, moves, stayed = ADDRESSES[moves % len(ADDRESSES)], moves + 1, stayed - STAY
        asked, asked_at = now(), time.monotonic()
        register(care_of, asked)
    if asked is not None and time.monotonic() > asked_at + 1:
        # The reply was lost, or the gateway has just been started.
        asked, asked_at = now(), time.monotonic()
        register(care_of, asked)
    readable, _, _ = select.select([ESP_SOCKET], [], [], 0.1)
    if not readable:
        quiet_since = quiet_since or time.monotonic()
        if moves == MOVES and asked is None and time.monotonic() > quiet_since + 1:
            break
        continue
    quiet_since = None
    outer = IP(ESP_SOCKET.recv(65535))
    if outer[ESP].spi != 0x2001:
        continue
    inner = DOWN.decrypt(outer, verify=True)
    if UDP in inner and MobileIPRRP in inner:
        messages.append(IP(raw(inner)))
        if asked is not None and inner[MobileIPRRP].id == asked:
            good = is_good(inner, asked) and outer.dst == care_of
            seen["registered" if good else "denied"] += 1
            asked = None
    elif inner.proto == 4 and ICMP in inner:
        # The tunnel of the home agent: from it to where we are, or were.
        tunnelled = inner.payload
        assert (inner.src, tunnelled.dst) == (AGENT, HOME), inner.summary()
        seen["pings"] += 1
        stayed += 1
        pong(tunnelled, care_of)
wrpcap("mip.pcap", messages)
print(json.dumps(seen))
