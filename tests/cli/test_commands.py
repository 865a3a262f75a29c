"""
Commands on real files, and what transcripts cannot hold: standard input, certificates made on the spot, usage.
"""

from __future__ import annotations

import json
import plistlib
from datetime import UTC, datetime

import pytest
from cli.transcripts import HERE, pinset
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from pinset import Pin, PinKind, PinSet, Policy, __version__, load_policy
from pinset.formats import write_toml


@pytest.fixture
def chain_file(leaf, tmp_path):
    path = tmp_path / "chain.pem"
    path.write_bytes(leaf.chain_pem)
    return path


def request_for(key) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.com")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def test_pins_of_files(leaf, chain_file, tmp_path):
    """Every certificate and request of every file, a line each, and nothing else on standard output."""
    request = tmp_path / "backup.csr"
    request.write_bytes(request_for(leaf.key))
    said = pinset("pin", chain_file, request)
    rows = [line.split("  ") for line in said.out.splitlines()]
    assert (said.status, [row[0] for row in rows[1:]]) == (
        0,
        [leaf.pin, str(Pin.from_certificate(leaf.chain[1])), leaf.pin],
    )
    assert said.out.splitlines()[0].split() == ["PIN", "OF", "SUBJECT", "FILE"]
    assert f"{chain_file}:2" in said.out
    assert said.err.startswith("next: ")


def test_pins_from_standard_input(leaf):
    """A dash reads what is piped in; DER as well as PEM."""
    for data in (leaf.chain_pem, leaf.chain[0]):
        said = pinset("pin", "-", stdin=data)
        assert leaf.pin in said.out
        assert "standard input" in said.out


def test_pins_as_a_record(leaf, chain_file):
    """The record has what the lines have, and the pin of the whole certificate."""
    record = json.loads(pinset("pin", chain_file, "--json").out)
    first, second = record["pins"]
    assert (first["pin"], first["of"], first["ca"]) == (leaf.pin, "certificate", False)
    assert second["ca"] is True
    assert set(first) == {"pin", "of", "file", "certificate_pin", "subject", "not_after", "ca"}
    said = pinset("pin", chain_file, "--certificates")
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == [p["certificate_pin"] for p in record["pins"]]


def test_pins_of_an_encrypted_key(leaf, tmp_path):
    """The passphrase comes from a file, never from the command line."""
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\n")
    key = tmp_path / "key.pem"
    encryption = serialization.BestAvailableEncryption(b"open sesame")
    key.write_bytes(leaf.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    assert leaf.pin in pinset("pin", key, "--passphrase-file", secret).out
    refused = pinset("pin", key)
    assert (refused.status, refused.out) == (2, "")
    assert "give it with --passphrase-file" in refused.err


def test_roles_from_the_chain(leaf, genuine, chain_file, tmp_path):
    """The certificates say which keys are of CAs, and Apple gets the right list."""
    issuer, root = Pin.from_certificate(leaf.chain[1]), Pin.from_certificate(genuine.root)
    policy = tmp_path / "pins.toml"
    policy.write_text(write_toml(Policy((PinSet(name="a.com", pins=[issuer, root]),))))
    said = pinset("convert", policy, "--to", "apple", "--chain", chain_file)
    assert said.status == 0, said.err
    [(name, settings)] = plistlib.loads(said.out.encode())["NSAppTransportSecurity"]["NSPinnedDomains"].items()
    assert (name, list(settings)) == ("a.com", ["NSPinnedCAIdentities"])
    mixed = tmp_path / "mixed.toml"
    mixed.write_text(write_toml(Policy((PinSet(name="a.com", pins=[issuer, leaf.pin]),))))
    refused = pinset("convert", mixed, "--to", "apple", "--chain", chain_file)
    assert (refused.status, refused.out) == (2, "")
    assert "keys of leaves and of CAs" in refused.err


def test_android_on_standard_input():
    """What is piped in is named so in the error."""
    android = (HERE / "files" / "android.xml").read_bytes()
    assert "example.com" in pinset("convert", "-", "--from", "android", stdin=android).out
    said = pinset("convert", "-", "--from", "android", stdin=b"<x>")
    assert said.status == 2
    assert "1 fault in standard input" in said.err


def test_loss_that_weakens(tmp_path):
    """Nothing is written, on standard output or to a file, until the loss is accepted."""
    android = HERE / "files" / "android.xml"
    out = tmp_path / "Info.plist"
    arguments = ("convert", android, "--from", "android", "--to", "apple", "--role", "ca", "--out", out)
    refused = pinset(*arguments)
    assert (refused.status, refused.out, out.exists()) == (3, "", False)
    record = pinset(*arguments, "--json")
    assert (record.status, json.loads(record.out)["text"]) == (3, None)
    accepted = pinset(*arguments, "--allow-loss")
    assert (accepted.status, accepted.out) == (0, "")
    assert out.read_bytes().startswith(b"<?xml")


def test_out_is_a_policy(tmp_path):
    """What convert writes, load_policy reads."""
    out = tmp_path / "pins.toml"
    assert pinset("convert", HERE / "files" / "android.xml", "--from", "android", "--out", out).status == 0
    assert load_policy(out).find("x.example.com").name == "example.com"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "x.xml"], "say what x.xml is"),
        (["convert", "x.xml", "--from", "yaml"], "yaml"),
        (["lint", "pins.toml", "--at", "tomorrow"], "tomorrow"),
        (["explain", "pins.toml"], "host"),
        (["pin"], "files"),
        (["nonsense"], "nonsense"),
    ],
)
def test_usage(arguments, words):
    """A command line that cannot be understood is status 2, and standard output stays empty."""
    said = pinset(*arguments)
    assert (said.status, said.out) == (2, "")
    assert words in said.err.lower()


def test_lint_with_certificates(leaf, chain_file, tmp_path):
    """With the certificate of the host, lint knows how long its key lives."""
    policy = tmp_path / "pins.toml"
    backup = Pin.from_certificate(leaf.chain[1])
    policy.write_text(write_toml(Policy((PinSet(name="a.com", leaf_pins=[leaf.pin, backup]),))))
    assert "note leaf-only" in pinset("lint", policy).out
    alone = tmp_path / "leaf.pem"
    alone.write_bytes(leaf.chain[0])
    said = pinset("lint", policy, "--chain", alone)
    assert said.status == 1
    assert "risk leaf-only: a.com: pins only keys of certificates that live 32 days" in said.out


def test_lint_knows_public_suffixes(tmp_path):
    """A tree of a public suffix is a risk; one of an internal network is not."""
    for name, rules in (("**.co.uk", ["public-suffix"]), ("**.internal", []), ("**.example.co.uk", [])):
        policy = tmp_path / "pins.toml"
        pins = [Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2)]
        policy.write_text(write_toml(Policy((PinSet(name=name, pins=pins),))))
        findings = json.loads(pinset("lint", policy, "--json").out)["findings"]
        assert [finding["rule"] for finding in findings] == rules


def test_plan_as_files(tmp_path):
    """The calendar and the page go to a file or to standard output."""
    policy = HERE / "files" / "pins.toml"
    for form, begins in (("--ics", "BEGIN:VCALENDAR\n"), ("--html", "<!doctype html>\n")):
        assert pinset("plan", policy, form).out.startswith(begins)
        out = tmp_path / form
        said = pinset("plan", policy, form, "--out", out)
        assert (said.status, said.out) == (0, "")
        assert out.read_text().startswith(begins)
    assert (tmp_path / "--ics").read_bytes().startswith(b"BEGIN:VCALENDAR\r\n")
    assert "<title>Rotation plan of pins.toml</title>" in (tmp_path / "--html").read_text()


def test_plan_with_every_date(tmp_path):
    """When every rule has a date and nothing is due, the calendar is next."""
    policy = tmp_path / "pins.toml"
    pins = [Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2)]
    expires = datetime(2027, 6, 1, tzinfo=UTC)
    rules = (PinSet(name="a.com", pins=pins, expires=expires, on_expiry="block", rotation="ask ops"),)
    policy.write_text(write_toml(Policy(rules)))
    said = pinset("plan", policy, "--at", "2026-11-01")
    assert said.err == f"next: pinset plan {policy} --ics --out rotations.ics, and open it in a calendar\n"
    assert "  rotation: ask ops" in pinset("explain", policy, "a.com").out
    names = [f"h{n}.example" for n in range(9)]
    policy.write_text(write_toml(Policy(tuple(PinSet(name=name, pins=pins) for name in names))))
    assert (
        "no date is known of h0.example, h1.example, h2.example, h3.example, h4.example …" in pinset("plan", policy).err
    )


def test_version():
    """--version prints the version and nothing else."""
    said = pinset("--version")
    assert (said.status, said.out, said.err) == (0, f"{__version__}\n", "")
