"""
``curl --pinnedpubkey`` and pinset agree, pin by pin. curl pins the leaf alone, as ``leaf_pins`` does.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

import pinset

pytestmark = pytest.mark.integration

CURL_OK, CURL_PINNED_KEY_MISMATCH = 0, 90


def _pin(identity):
    return pinset.Pin.from_certificate(identity.chain[0])


def _request_pin(identity):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(identity.key, hashes.SHA256())
    return pinset.Pin.from_csr(request.public_bytes(serialization.Encoding.PEM))


def _key_pin(identity):
    public = identity.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pinset.Pin.from_public_key(public)


# What is pinned, from the genuine server's identity, its authority and the rogue identity; and the exit code of curl
# for the genuine server and for the rogue one.
TABLE = {
    "right leaf": (lambda lab, own, ca, rogue: [_pin(own)], 0, 90),
    "wrong": (lambda lab, own, ca, rogue: [lab.backup()], 90, 90),
    "two, the first right": (lambda lab, own, ca, rogue: [_pin(own), lab.backup()], 0, 90),
    "two, the second right": (lambda lab, own, ca, rogue: [lab.backup(), _pin(own)], 0, 90),
    "two wrong": (lambda lab, own, ca, rogue: [lab.backup(), lab.backup()], 90, 90),
    "five, the last right": (lambda lab, own, ca, rogue: [*(lab.backup() for _ in range(4)), _pin(own)], 0, 90),
    "both servers": (lambda lab, own, ca, rogue: [_pin(own), _pin(rogue)], 0, 0),
    "the other server": (lambda lab, own, ca, rogue: [_pin(rogue)], 90, 0),
    "intermediate": (lambda lab, own, ca, rogue: [pinset.Pin.from_certificate(ca.above[0])], 90, 90),
    "root": (lambda lab, own, ca, rogue: [pinset.Pin.from_certificate(ca.root)], 90, 90),
    "from the signing request": (lambda lab, own, ca, rogue: [_request_pin(own)], 0, 90),
    "from the public key": (lambda lab, own, ca, rogue: [_key_pin(own)], 0, 90),
    "all zero": (lambda lab, own, ca, rogue: [pinset.Pin(pinset.PinKind.SPKI, bytes(32))], 90, 90),
}


@pytest.fixture(scope="module")
def curl(require_program):
    return require_program("curl")


@pytest.fixture
def roots(lab, tmp_path):
    path = tmp_path / "roots.pem"
    path.write_text(lab.cadata())
    return path


def _in_curls_form(pin):
    return "sha256//" + base64.b64encode(pin.digest).decode()


async def _curl_says(program, roots, pins, url):
    listed = ";".join(_in_curls_form(pin) for pin in pins)
    command = [program, "-q", "--noproxy", "*", "-sS", "--max-time", "20", "--cacert", str(roots)]
    command += ["--pinnedpubkey", listed, url]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    return done.returncode


async def _pinset_says(lab, pins, url):
    policy = pinset.Policy((pinset.PinSet(name="localhost", leaf_pins=pins, allow_single_pin=True),))
    async with lab.pinned(policy) as client:
        try:
            response = await client.get(url)
        except pinset.PinMismatchError:
            return CURL_PINNED_KEY_MISMATCH
    assert response.status_code == 200
    return CURL_OK


@pytest.mark.asyncio
@pytest.mark.parametrize("row", TABLE)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
async def test_curl_and_pinset_agree(lab, curl, roots, *, kind, version, row):
    """For every server and list of pins, the exit code of curl and the verdict of pinset are the same, and as told."""
    genuine, rogue = (lab.origins[kind, version, side] for side in ("genuine", "rogue"))
    choose, *expected = TABLE[row]
    pins = choose(lab, genuine.identity, lab.genuine[kind], rogue.identity)
    for origin, code in zip((genuine, rogue), expected, strict=True):
        url = origin.url(lab.path("curl"))
        curls, ours = await asyncio.gather(_curl_says(curl, roots, pins, url), _pinset_says(lab, pins, url))
        assert (curls, ours) == (code, code)


# The pin of the genuine EC server begins with a slash (conftest.py), so that its two spellings are easily confused.
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(_in_curls_form, id="curl"),
        pytest.param(
            str,
            id="canonical",
        ),
    ],
)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_pin_as_text(lab, curl, roots, version, spell):
    """A pin whose base64 begins with a slash is taken in both spellings, with the same result as in curl."""
    genuine, rogue = (lab.origins["ec", version, side] for side in ("genuine", "rogue"))
    pin = _pin(genuine.identity)
    assert str(pin).startswith("sha256//")
    for origin, code in ((genuine, CURL_OK), (rogue, CURL_PINNED_KEY_MISMATCH)):
        url = origin.url(lab.path("text"))
        assert await _curl_says(curl, roots, [pin], url) == code
        assert await _pinset_says(lab, [spell(pin)], url) == code
