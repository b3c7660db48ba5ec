"""hostile.py GATEWAY SEED: sends IKE messages made by scapy: valid, invalid and out of order. Prints how many valid ones
were answered with SA, KE and nonce, as scapy parses them."""

import os
import random
import socket
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scapy.contrib.ikev2 import (
    IKEv2,
    IKEv2_payload_KE,
    IKEv2_payload_Nonce,
    IKEv2_payload_Notify,
    IKEv2_payload_Proposal,
    IKEv2_payload_SA,
    IKEv2_payload_Transform,
)
from scapy.packet import raw

GATEWAY, SEED = sys.argv[1], int(sys.argv[2])
random.seed(SEED)
SOCKET = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
SOCKET.settimeout(2)
SOCKET.connect((GATEWAY, 500))


def transform(kind, number, bits=None):
    attribute = {"length": 12, "key_length": bits} if bits else {}
    return IKEv2_payload_Transform(transform_type=kind, transform_id=number, **attribute)


def init(spi=None):
    """IKE_SA_INIT: AES-GCM-256, PRF SHA2-384, X25519."""
    transforms = transform("Encryption", 20, 256) / transform("PRF", 6) / transform("GroupDesc", 31)
    proposal = IKEv2_payload_Proposal(proposal=1, proto="IKEv2", trans_nb=3, trans=transforms)
    public = X25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return (
        IKEv2(init_SPI=spi or os.urandom(8), next_payload="SA", exch_type="IKE_SA_INIT", flags="Initiator")
        / IKEv2_payload_SA(next_payload="KE", prop=proposal)
        / IKEv2_payload_KE(next_payload="Nonce", group=31, load=public)
        / IKEv2_payload_Nonce(load=os.urandom(32))
    )


def is_good(answer, request):
    message = IKEv2(answer)
    return (
        message.init_SPI == request.init_SPI
        and message.resp_SPI != bytes(8)
        and message.haslayer(IKEv2_payload_SA)
        and len(message[IKEv2_payload_KE].load) == 32
        and message.haslayer(IKEv2_payload_Nonce)
    )


def mutated(message):
    bytes_ = bytearray(message)
    kind = random.randrange(5)
    if kind == 0:
        return bytes(bytes_[: random.randrange(len(bytes_))])
    if kind == 1:
        return bytes(bytes_) + os.urandom(random.randrange(1, 1000))
    for _ in range(random.randrange(1, 8)):
        bytes_[random.randrange(len(bytes_))] = random.randrange(256)
    if kind == 2:
        bytes_[24:28] = len(bytes_).to_bytes(4, "big")
    return bytes(bytes_)


answered = 0
for turn in range(20):
    request = init()
    wire = raw(request)
    # IKE_AUTH before IKE_SA_INIT, and an answer without a request.
    auth = IKEv2(init_SPI=request.init_SPI, resp_SPI=os.urandom(8), next_payload=46, exch_type="IKE_AUTH", flags="Initiator", id=1)
    SOCKET.send(raw(auth / os.urandom(200)))
    SOCKET.send(raw(IKEv2(init_SPI=request.init_SPI, exch_type="IKE_SA_INIT", flags="Response") / IKEv2_payload_Notify()))
    for _ in range(100):
        SOCKET.send(mutated(wire))
    SOCKET.send(wire)
    try:
        while not is_good(SOCKET.recv(65535), request):
            pass
        answered += 1
    except (socket.timeout, IndexError):
        pass
    for size in (0, 1, 27, 28, 29, 1400):
        SOCKET.send(os.urandom(size))
print(answered)
