#!/usr/bin/python3
"""For each line of input, a packet in hexadecimal whose lengths and checksums may be anything, prints what scapy makes
of it when it is left to fill them in."""

import logging
import sys

logging.getLogger("scapy").setLevel(logging.CRITICAL)

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import HAO, IPv6, IPv6ExtHdrDestOpt, _ICMPv6
from scapy.layers.sctp import SCTP
from scapy.packet import NoPayload

# What is to be filled in. The first transport is the last: what an ICMP error embeds stays.
NETWORK = {IP: ("len", "chksum"), IPv6: ("plen",)}
TRANSPORT = {TCP: ("chksum",), UDP: ("len", "chksum"), ICMP: ("chksum",), _ICMPv6: ("cksum",), SCTP: ("chksum",)}


def keep_all(_, data):
    return data, None


def rebuild(data):
    packet = layer = IP(data) if data[0] >> 4 == 4 else IPv6(data)
    while not isinstance(layer, NoPayload):
        if isinstance(layer, IPv6ExtHdrDestOpt) and any(isinstance(option, HAO) for option in layer.options):
            # Padding, which it adds itself, hides the home address from scapy's checksum.
            layer.options = [option for option in layer.options if isinstance(option, HAO)]
        for table in (NETWORK, TRANSPORT):
            for kind, fields in table.items():
                if isinstance(layer, kind):
                    for field in fields:
                        delattr(layer, field)
                    if table is TRANSPORT:
                        return bytes(packet)
        layer = layer.payload
    return bytes(packet)


def main():
    # No length that a packet claims is believed.
    for kind in (IP, IPv6, UDP):
        kind.extract_padding = keep_all
    for kind in (TCP, UDP, SCTP):
        kind.payload_guess = []
    for line in sys.stdin:
        print(rebuild(bytes.fromhex(line)).hex())


main()
