"""
What people are shown of a certificate: what can be read, and a remark for the rest.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ed25519

from pinset._certificates import read_certificate, read_chain
from pinset.formats import read_toml
from pinset.operate.material import read_material
from pinset.operate.proposal import Sighting, describe, propose
from pinset.testing import Authority


def test_kinds_of_keys(leaf):
    """The key is named by its kind and size."""
    rsa = Authority("R", key="rsa").issue("a.com").chain[0]
    edwards = Authority("E").issue("a.com", key=ed25519.Ed25519PrivateKey.generate()).chain[0]
    kinds = [describe(read_certificate(der)).key for der in (leaf.chain[0], rsa, edwards)]
    assert kinds == ["EC secp256r1", "RSA 2048", "Ed25519"]
    assert describe(read_certificate(rsa)).issuer == "CN=R Intermediate"


def test_certificate_that_cryptography_cannot_read(leaf):
    """Pins do not depend on what cryptography can read, so a remark is enough."""
    broken = replace(read_certificate(leaf.chain[0]), der=b"0\x00")
    assert describe(broken).issuer == "(unreadable issuer)"
    assert describe(broken).key == "(unknown key)"


def test_certificate_without_extensions_is_a_leaf(leaf):
    """A certificate whose extensions cannot be read is none of a CA."""
    der = bytearray(leaf.chain[1])
    at = der.index(bytes.fromhex("0603551d13"))  # the name of basicConstraints (RFC 5280 section 4.2.1.9)
    der[at + 4] = 0x7F
    assert [material.is_authority for material in read_material(bytes(der), source="x")] == [False]


def test_several_hosts_make_one_policy(leaf, genuine):
    """Each host has its rule, with the whole chain in comments."""
    chain = read_chain((*leaf.chain, genuine.root))
    hosts = ("a.com", "::1")
    text = propose([Sighting(host, f"{host}:443", host, chain) for host in hosts], datetime(2026, 11, 1, tzinfo=UTC))
    assert [rule.name for rule in read_toml(text).pin_sets] == ["a.com", "::1"]
    assert text.count("# 2 CN=Genuine Root") == 2
