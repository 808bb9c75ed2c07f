#!/usr/bin/python3
"""Reads a capture of raw IP packets with scapy and prints, one line a packet, every field that the
comparison knows, as key=value; a field that is not there is left out. Keys are named in reading.lua."""

import logging
import socket
import struct
import sys

logging.getLogger("scapy").setLevel(logging.CRITICAL)

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, IPerror, TCP, UDP
from scapy.layers.inet6 import (IPerror6, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
                                IPv6ExtHdrRouting, IPv6ExtHdrSegmentRouting, _ICMPv6)
from scapy.layers.ipsec import AH
from scapy.packet import NoPayload, Padding

EXTENSIONS = (IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, IPv6ExtHdrSegmentRouting, IPv6ExtHdrDestOpt,
              IPv6ExtHdrFragment, AH)
LETTERS = "FSRPAUEC"
FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")


def read_packets(file):
    """The records of a little-endian pcap file: bytes of each."""
    file.read(24)
    while True:
        header = file.read(16)
        if len(header) < 16:
            return
        yield file.read(struct.unpack("<IIII", header)[2])


def read_ip(layer, out):
    out["ip.version"] = layer.version
    out["ip.src"] = layer.src
    out["ip.dst"] = layer.dst
    family = socket.AF_INET if isinstance(layer, IP) else socket.AF_INET6
    out["ip.src_bytes"] = socket.inet_pton(family, layer.src).hex()
    out["ip.dst_bytes"] = socket.inet_pton(family, layer.dst).hex()
    out["ip.offset"] = 0
    if isinstance(layer, IP):
        out["ip.ttl"] = layer.ttl
        out["ip.tos"] = layer.tos
        out["ip.id"] = layer.id
        out["ip.df"] = int(bool(layer.flags.DF))
        out["ip.mf"] = int(bool(layer.flags.MF))
        out["ip.frag_offset"] = layer.frag * 8
        out["ip.length"] = layer.len
        out["ip.checksum"] = layer.chksum
        return layer.proto
    out["ip.ttl"] = layer.hlim
    out["ip.tos"] = layer.tc
    out["ip.mf"] = 0
    out["ip.frag_offset"] = 0
    out["ip.length"] = layer.plen + 40
    return layer.nh


def read_option(layer, option):
    """The bytes of a TCP option's value, as scapy writes what it read."""
    field = layer.get_field("options")
    raw = field.i2m(layer, [option])
    return raw[0], raw[2:raw[1]].hex()


def read_tcp(layer, out):
    out["tcp.sport"] = layer.sport
    out["tcp.dport"] = layer.dport
    out["tcp.seq"] = layer.seq
    out["tcp.ack_seq"] = layer.ack
    out["tcp.window"] = layer.window
    out["tcp.checksum"] = layer.chksum
    out["tcp.urg_ptr"] = layer.urgptr
    flags = int(layer.flags)
    out["tcp.flags"] = "".join(letter for bit, letter in enumerate(LETTERS) if flags >> bit & 1)
    for bit, name in enumerate(FLAGS):
        out["tcp." + name] = flags >> bit & 1
    for option in layer.options:
        if option[0] in ("EOL", "NOP"):
            continue
        kind, value = read_option(layer, option)
        out.setdefault("tcp.option.%d" % kind, value)
        if option[0] == "MSS" and isinstance(option[1], int):
            out.setdefault("tcp.mss", option[1])


def read_embedded(layer, out):
    if isinstance(layer, (IPerror, IPerror6)):
        padding = layer.getlayer(Padding)
        size = len(layer.original) - (len(padding.load) if padding else 0)
        out["icmp.embedded"] = layer.original[:size].hex()


def read(data):
    out = {}
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        layer = IP(data)
    elif version == 6 and len(data) >= 40:
        layer = IPv6(data)
    else:
        return out
    protocol = read_ip(layer, out)
    offset = len(layer.raw_packet_cache)
    layer = layer.payload
    while isinstance(layer, EXTENSIONS):
        protocol = layer.nh
        if isinstance(layer, IPv6ExtHdrFragment):
            out.setdefault("ip.id", layer.id)
            out["ip.mf"] |= layer.m
            out["ip.frag_offset"] = layer.offset * 8
        offset += len(layer.raw_packet_cache)
        layer = layer.payload
    out["ip.protocol"] = protocol
    size = 0 if isinstance(layer, (NoPayload, Padding)) else len(layer.original)
    header = 0
    if isinstance(layer, TCP):
        read_tcp(layer, out)
        out["tcp.offset"] = offset
        header = len(layer.raw_packet_cache)
        size = header + (0 if isinstance(layer.payload, (NoPayload, Padding)) else len(layer.payload.original))
    elif isinstance(layer, UDP):
        out["udp.sport"] = layer.sport
        out["udp.dport"] = layer.dport
        out["udp.length"] = layer.len
        out["udp.checksum"] = layer.chksum
        out["udp.offset"] = offset
        header = 8
        size = header + (0 if isinstance(layer.payload, (NoPayload, Padding)) else len(layer.payload.original))
    elif isinstance(layer, (ICMP, _ICMPv6)):
        out["icmp.type"] = layer.type
        out["icmp.code"] = layer.fields.get("code", layer.fields.get("res"))  # a MLDv2 report's is reserved
        out["icmp.checksum"] = layer.chksum if isinstance(layer, ICMP) else layer.cksum
        out["icmp.offset"] = offset
        for name in ("id", "seq"):
            value = layer.getfieldval(name) if name in layer.fields else None
            if isinstance(value, int):
                out["icmp." + name] = value
        read_embedded(layer.payload, out)
        header = min(8, size)
    out["payload.offset"] = offset + header
    out["payload.length"] = size - header
    return out


def main():
    conf.debug_dissector = False
    for transport in (TCP, UDP):
        transport.payload_guess = []  # what a payload means is another's business
    with open(sys.argv[1], "rb") as file:
        for data in read_packets(file):
            try:
                values = read(data)
            except Exception as problem:  # scapy has no class for "I cannot read this"
                values = {"error": type(problem).__name__}
            sys.stdout.write(" ".join("%s=%s" % item for item in values.items() if item[1] is not None) + "\n")


main()
