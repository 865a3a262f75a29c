"""
Backup keys, and how their pins get into a policy that people have written.
"""

from __future__ import annotations

import tomllib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pinset import HostError, InputError, Pin, PinKind, PolicyError
from pinset.formats import read_toml
from pinset.operate.backup import KeyType, add_backup, make_backup

SECRET = b"open sesame"
ONE, TWO, NEW = (Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2, 9))
WHOLE = Pin(PinKind.CERTIFICATE, bytes(32))


@pytest.mark.parametrize(
    ("kind", "host", "alternative"),
    [
        (KeyType.EC, "API.example.com", x509.DNSName("api.example.com")),
        (KeyType.RSA, "192.0.2.1", x509.IPAddress(__import__("ipaddress").ip_address("192.0.2.1"))),
        (KeyType.EC, "a" * 60 + ".example.com", x509.DNSName("a" * 60 + ".example.com")),
    ],
)
def test_key_and_request_belong_together(kind, host, alternative):
    """The request is for the host and for the key, which only its passphrase opens."""
    made = make_backup(host, kind=kind, passphrase=SECRET)
    key = load_pem_private_key(made.key_pem, SECRET)
    with pytest.raises(TypeError):
        load_pem_private_key(made.key_pem, None)
    assert made.key_pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    request = x509.load_pem_x509_csr(made.request_pem)
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [alternative]
    assert Pin.from_csr(made.request_pem) == made.pin
    if kind is KeyType.EC:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"
    else:
        assert isinstance(key, rsa.RSAPrivateKey)
        assert key.key_size == 3072


def test_refusals():
    """No host, or a passphrase that protects nothing."""
    with pytest.raises(HostError):
        make_backup("a..b", kind=KeyType.EC, passphrase=SECRET)
    with pytest.raises(InputError, match="has 7 bytes; give at least 8"):
        make_backup("a.com", kind=KeyType.EC, passphrase=b"1234567")


BEFORE = f"""# Kept by ops.
unlisted = "deny"   # on purpose

[[host]]
name = "other.com"
pins = ["{ONE}", "{TWO}"]

# The public interface.
[[host]]
name = "a.com"
subdomains = "all" # all of them
pins = [
    "{ONE}", # in service
]
allow_single_pin = true
rotation = "in May"
"""
AFTER = BEFORE.replace("in service\n", f'in service\n    "{NEW}", # made today\n').replace(
    "allow_single_pin = true\n", ""
)


def test_comments_and_order_stay():
    """The pin has a line and a comment of its own, and what is no longer true is taken away."""
    assert add_backup(BEFORE, "x.a.com", NEW, comment="made today") == AFTER


@pytest.mark.parametrize(
    "pins",
    [
        f'pins = ["{ONE}"]',
        f'pins = ["{ONE}", "{TWO}"] # both',
        f'pins = [ "{ONE}", ]',
        f'pins = [\n  "{ONE}",\n  "{TWO}" # last\n]',
        f'pins = [\n    "{ONE}",\n    # more to come\n]',
        f'leaf_pins = ["{ONE}"]\nca_pins = ["{TWO}", "{ONE}"]',
    ],
)
def test_lists_as_people_write_them(pins):
    """However the list is written, it has one pin more, and is a policy."""
    text = f'[[host]]\nname = "a.com"\n{pins}\nallow_single_pin = true\n'
    [before], [after] = (
        read_toml(each).pin_sets for each in (text, add_backup(text, "a.com", NEW, comment="made today"))
    )
    role = "leaf_pins" if "leaf" in pins else "pins"
    assert getattr(after, role) == (*getattr(before, role), NEW)
    assert not after.allow_single_pin


def test_what_is_still_needed_stays():
    """allow_single_pin stays for the sake of another list."""
    text = f'[[host]]\nname = "a.com"\nleaf_pins = ["{ONE}"]\nca_pins = ["{TWO}"]\nallow_single_pin = true\n'
    assert read_toml(add_backup(text, "a.com", NEW, comment="x")).pin_sets[0].allow_single_pin


def test_inline_tables():
    """Hosts may stand in one list."""
    text = f'host = [{{name = "a.com", pins = ["{ONE}", "{TWO}"]}}]\n'
    amended = add_backup(text, "a.com", NEW, comment="x")
    assert tomllib.loads(amended)["host"][0]["pins"] == [str(ONE), str(TWO), str(NEW)]


@pytest.mark.parametrize(
    ("text", "host", "reason"),
    [
        ("x", "a.com", "not TOML"),
        (BEFORE, "b.org", "no rule of the policy pins this host"),
        (BEFORE + '[[host]]\nname = "off.a.com"\nmode = "off"\n', "off.a.com", "no rule of the policy pins this host"),
        (f'[[host]]\nname = "a.com"\nca_pins = ["{ONE}", "{TWO}"]\n', "a.com", "pins CAs or whole certificates only"),
        (
            f'[[host]]\nname = "a.com"\ncertificate_pins = ["{WHOLE}"]\nallow_single_pin = true\n',
            "a.com",
            "pins CAs or whole certificates only",
        ),
        (BEFORE.replace(str(ONE), str(NEW)), "a.com", "is a pin of the rule already"),
    ],
)
def test_rules_that_take_no_backup(text, host, reason):
    """A rule that is not there, or has no list for the key of a server."""
    with pytest.raises(PolicyError) as caught:
        add_backup(text, host, NEW, comment="x", source="pins.toml")
    assert reason in str(caught.value)
