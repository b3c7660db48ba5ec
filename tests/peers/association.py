"""Security associations of the test's cases for scapy, with additions for features that scapy 2.5 lacks.

A case is one tunnel of the gateway. "in" is the direction from the peer to the gateway, "out" the other one.
"""

import copy
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, in6_chksum
from scapy.layers.ipsec import (
    CRYPT_ALGOS,
    ESP,
    AuthAlgo,
    CryptAlgo,
    IPSecIntegrityError,
    SecurityAssociation,
)
from scapy.packet import Raw, raw

# Packets of every case in each direction.
ROUNDS = 3
# scapy's name of an HMAC, and its key's length.
HASHES = {
    "sha1": ("HMAC-SHA1-96", 20),
    "sha256": ("SHA2-256-128", 32),
    "sha384": ("SHA2-384-192", 48),
    "sha512": ("SHA2-512-256", 64),
}


class EsnHmac(AuthAlgo):
    """HMAC over the upper half of the sequence number too (RFC 4303 §2.2.1), which scapy covers for AH only."""

    def __init__(self, plain, high):
        vars(self).update(vars(plain))
        self.high = struct.pack("!L", high)

    def icv(self, covered, key):
        mac = self.new_mac(key)
        mac.update(covered + self.high)
        return mac.finalize()[:self.icv_size]

    def sign(self, pkt, key, **_):
        pkt.data += self.icv(raw(pkt), key)

    def verify(self, pkt, key, **_):
        whole = raw(pkt)
        if self.icv(whole[:-self.icv_size], key) != whole[-self.icv_size:]:
            raise IPSecIntegrityError("ICV with ESN")


class Gmac(CryptAlgo):
    """ENCR_NULL_AUTH_AES_GMAC (RFC 4543), which scapy 2.5 does not have."""

    def __init__(self):
        sizes = {"key_size": (16, 24, 32), "iv_size": 8, "icv_size": 16, "salt_size": 4}
        super().__init__("AES-NULL-GMAC", cipher=None, mode=None, **sizes)

    @staticmethod
    def icv(sa, esp, iv, text, key):
        sequence = struct.pack("!LL", sa.esn, esp.seq) if sa.esn_en else struct.pack("!L", esp.seq)
        covered = struct.pack("!L", esp.spi) + sequence + iv + text
        return AESGCM(key).encrypt(sa.crypt_salt + iv, b"", covered)

    def encrypt(self, sa, esp, key, *_, **__):
        text = esp.data_for_encryption()
        return ESP(spi=esp.spi, seq=esp.seq, data=esp.iv + text + self.icv(sa, esp, esp.iv, text, key))

    def decrypt(self, sa, esp, key, *_, **__):
        if self.icv(sa, esp, esp.data[:8], esp.data[8:-16], key) != esp.data[-16:]:
            raise IPSecIntegrityError("GMAC")
        return CRYPT_ALGOS["NULL"].decrypt(sa, ESP(spi=esp.spi, seq=esp.seq, data=esp.data[8:]), None, icv_size=16)


CRYPT_ALGOS["AES-NULL-GMAC"] = Gmac()


def algorithms(suite, material):
    """Returns scapy's names and keys for a suite of the gateway."""
    if suite == "chacha20poly1305":
        return {"crypt_algo": "CHACHA20-POLY1305", "crypt_key": material}
    if suite.endswith("gcm16"):
        return {"crypt_algo": "AES-GCM", "crypt_key": material}
    if suite.endswith("gmac"):
        return {"crypt_algo": "AES-NULL-GMAC", "crypt_key": material}
    cipher, hash_name = suite.split("-")
    auth, length = HASHES[hash_name]
    crypt = "NULL" if cipher == "null" else "AES-CBC"
    keys = {"crypt_key": material[:-length], "auth_key": material[-length:]}
    return {"crypt_algo": crypt, "auth_algo": auth, **keys}


def header(src, dst, **fields):
    return IPv6(src=src, dst=dst, **fields) if ":" in src else IP(src=src, dst=dst, **fields)


def association(case, way, number, extra=0):
    """Makes the SA for one packet with sequence number `number` and `extra` bytes of padding."""
    material = bytes.fromhex(case[f"key_{way}"])
    ends = (case["peer"], case["gateway"]) if way == "in" else (case["gateway"], case["peer"])
    sa = SecurityAssociation(
        ESP,
        spi=case[f"spi_{way}"],
        tunnel_header=header(*ends) if case["mode"] == "tunnel" else None,
        nat_t_header=UDP(sport=4500, dport=4500) if case["udp"] else None,
        esn_en=case["esn"],
        **algorithms(case["suite"], material),
    )
    # Set here because scapy ignores a 0 among the arguments.
    sa.seq_num, sa.esn = number & 0xFFFFFFFF, number >> 32
    if case["esn"] and sa.auth_key:
        sa.auth_algo = EsnHmac(sa.auth_algo, sa.esn)
    minimal = sa.crypt_algo.pad

    def pad(esp):
        esp = minimal(esp)
        esp.padlen += extra
        esp.padding = bytes(range(1, esp.padlen + 1))
        return esp

    sa.crypt_algo = copy.copy(sa.crypt_algo)
    sa.crypt_algo.pad = pad
    return sa


def inner(case, way, turn):
    """Makes the packet that a case carries in round `turn`: UDP, TCP and ping in turn, of all lengths."""
    ends = (case["terminal"], case["inside"]) if way == "in" else (case["inside"], case["terminal"])
    body = (f"{case['name']} {way} {turn} ".encode() * 60)[: 40 + (case["spi_in"] * 37 + turn * 411) % 1200]
    ping = ICMPv6EchoRequest(id=turn, data=body) if ":" in ends[0] else ICMP(id=turn) / Raw(body)
    kinds = [UDP(sport=7000, dport=7001) / Raw(body), TCP(sport=7002, dport=7003, flags="PA") / Raw(body), ping]
    packet = header(*ends, **({"hlim": 64 - turn} if ":" in ends[0] else {"ttl": 64 - turn, "id": 100 + turn}))
    return packet.__class__(raw(packet / kinds[turn]))


def forwarded(packet):
    """Returns the packet as a router forwards it."""
    packet = packet.copy()
    if packet.version == 4:
        packet.ttl -= 1
        del packet.chksum
    else:
        packet.hlim -= 1
    return packet.__class__(raw(packet))


def without_udp(packet):
    """An ESP packet without UDP (RFC 3948 §2.1) around it: scapy cannot open that in transport mode over IPv6."""
    udp = packet[UDP]
    assert (udp.sport, udp.dport, udp.len) == (4500, 4500, len(udp)), udp.summary()
    if packet.version == 4:
        assert udp.chksum == 0
        del packet.proto, packet.len, packet.chksum
    else:
        assert in6_chksum(17, packet, raw(udp)) == 0, "UDP checksum"
        del packet.nh, packet.plen
    esp = udp.payload
    packet.remove_payload()
    return packet.__class__(raw(packet / esp))
