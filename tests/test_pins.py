"""
`Pin`: parsed, printed and computed.
"""

from __future__ import annotations

import base64
import hashlib
import pickle
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from pinset import CertificateError, InputError, Pin, PinError, PinKind
from pinset.testing import Authority

B64 = "7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="
DIGEST = base64.b64decode(B64)
HEX = ":".join(f"{byte:02X}" for byte in DIGEST)
EXAMPLE = f"a pin is 'sha256/' and 44 characters of base64, such as sha256/{B64}"

KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
SPKI_PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
CERTIFICATE = Authority("Pins").issue("example.com", key=KEY).chain[0]
CERTIFICATE_PEM = ssl.DER_cert_to_PEM_cert(CERTIFICATE)
REQUEST = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(KEY, hashes.SHA256())
REQUEST_DER = REQUEST.public_bytes(serialization.Encoding.DER)
REQUEST_PEM = REQUEST.public_bytes(serialization.Encoding.PEM).decode()
KEY_PIN = Pin(PinKind.SPKI, hashlib.sha256(SPKI).digest())


@given(st.builds(Pin, st.sampled_from(PinKind), st.binary(min_size=32, max_size=32)))
@example(Pin(PinKind.SPKI, b"\xff" * 32))
@example(Pin(PinKind.SPKI, b"\xfc" + bytes(31)))
@example(Pin(PinKind.CERTIFICATE, bytes(32)))
def test_parse_undoes_str(pin):
    """Every pin is read back from its text as the same pin of the same kind."""
    assert Pin.parse(str(pin)) == pin
    assert Pin.parse(str(pin), kind=pin.kind) == pin
    assert pickle.loads(pickle.dumps(pin)) == pin


@given(st.binary(min_size=32, max_size=32))
@example(b"\xff" * 32)
@example(b"\xfc" + bytes(31))
def test_every_form_is_the_same_pin(digest):
    """curl's and HPKP's forms and space around them make no difference."""
    encoded = base64.b64encode(digest).decode()
    pin = Pin(PinKind.SPKI, digest)
    assert Pin.parse(f"sha256//{encoded}") == pin
    assert Pin.parse(f'pin-sha256="{encoded}"') == pin
    assert Pin.parse(f"\t sha256/{encoded} \n") == pin


@given(st.text(max_size=120) | st.from_regex(r"(sha256//?|pin-sha256=\")[A-Za-z0-9+/=]{40,48}\"?", fullmatch=True))
def test_parse_raises_nothing_but_pin_error(text):
    """A text is a pin, and then of one spelling per form, or a PinError that carries its beginning."""
    try:
        pin = Pin.parse(text)
    except PinError as error:
        assert error.text == text.strip()[:80] or error.text == text[:80]
    else:
        assert str(pin).partition("/")[2] in text or str(pin).upper() == text.strip().upper()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", f"'' does not name its algorithm; {EXAMPLE}"),
        (B64, f"does not name its algorithm; {EXAMPLE}"),
        (f"sha1/{B64}", "uses sha1, which can be forged; pin with sha256"),
        (f"md5/{B64}", "uses md5, which can be forged; pin with sha256"),
        (f"sha512/{B64}", f"uses 'sha512', and only sha256 is known; {EXAMPLE}"),
        (f"SHA256/{B64}", f"uses 'SHA256', and only sha256 is known; {EXAMPLE}"),
        (f"/{B64}", f"uses '', and only sha256 is known; {EXAMPLE}"),
        ("sha256/a", f"is not base64; {EXAMPLE}"),
        ("sha256/é", f"is not base64; {EXAMPLE}"),
        (f"sha256/{B64[:-1]}", "is not base64"),
        (f"sha256/{B64}=", "is not base64"),
        (f"sha256/ {B64}", "is not base64"),
        (f"sha256/{B64[:4]}\n{B64[4:]}", "is not base64"),
        ("sha256/" + B64.replace("7H", "_-"), "is not base64"),
        ("sha256/", f"is 0 bytes, and SHA-256 is 32; {EXAMPLE}"),
        ('pin-sha256=""', "is 0 bytes, and SHA-256 is 32"),
        ("sha256/" + base64.b64encode(bytes(31)).decode(), "is 31 bytes, and SHA-256 is 32"),
        ("sha256/" + base64.b64encode(bytes(33)).decode(), "is 33 bytes, and SHA-256 is 32"),
        (
            f"sha256/{B64[:42]}Z=",
            f"is not canonical base64; if it is the right pin, write sha256/{B64[:42]}Y=",
        ),
        # Not canonical in a place where the alphabet of base64 and that of ASCII disagree: 8 and + are 60 and 62.
        (
            f"sha256/{B64[:42]}+=",
            f"is not canonical base64; if it is the right pin, write sha256/{B64[:42]}8=",
        ),
        # Only what is longer than a digest can have curl's second slash.
        ("sha256//AA==", "is not base64"),
        (f'pin-sha256="{B64}', "does not name its algorithm"),
        (":", "is not a fingerprint: two hexadecimal digits a byte, joined by colons"),
        (HEX + ":", "is not a fingerprint"),
        (HEX.replace("EC", "EG"), "is not a fingerprint"),
        (HEX[:-3], "is 31 bytes, and SHA-256 is 32; ask openssl for -sha256"),
        (HEX + ":00", "is 33 bytes, and SHA-256 is 32; ask openssl for -sha256"),
        (HEX[:59], "is 20 bytes, and SHA-256 is 32; ask openssl for -sha256"),
    ],
)
def test_refused_text(text, reason):
    """A text that is no pin is refused with what is wrong and what a pin looks like."""
    with pytest.raises(PinError) as caught:
        Pin.parse(text)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(repr(text)[:78])
    assert caught.value.text == text[:80]


@pytest.mark.parametrize(("length", "quoted"), [(80, "a" * 80), (81, "a" * 79 + "…")])
def test_long_text_is_cut(length, quoted):
    """An error quotes at most 80 characters, and carries at most 80."""
    with pytest.raises(PinError) as caught:
        Pin.parse("a" * length)
    assert str(caught.value).startswith(f"'{quoted}' ")
    assert caught.value.text == "a" * 80


def test_fingerprint_is_a_certificate_pin():
    """Colon-separated hexadecimal is the pin of a certificate, in either case."""
    assert Pin.parse(HEX) == Pin.parse(HEX.lower()) == Pin(PinKind.CERTIFICATE, DIGEST)
    assert str(Pin.parse(HEX)) == HEX
    assert Pin.parse(f" {HEX}\n", kind=PinKind.CERTIFICATE) == Pin(PinKind.CERTIFICATE, DIGEST)


def test_fingerprint_where_a_key_is_expected_is_refused():
    """A certificate's fingerprint is not taken for a key's."""
    with pytest.raises(
        PinError, match="is the fingerprint of a certificate, not a public-key pin; put it into"
    ) as caught:
        Pin.parse(HEX, kind=PinKind.SPKI)
    assert "certificate_pins, or pin the key" in str(caught.value)
    assert caught.value.text == HEX[:80]


def test_base64_is_of_the_kind_that_is_asked_for():
    """Base64 stands for a key unless a certificate is asked for."""
    assert Pin.parse(f"sha256/{B64}").kind is PinKind.SPKI
    assert Pin.parse(f"sha256/{B64}", kind=PinKind.SPKI).kind is PinKind.SPKI
    assert Pin.parse(f"sha256/{B64}", kind=PinKind.CERTIFICATE) == Pin(PinKind.CERTIFICATE, DIGEST)


def test_kind_is_named():
    """The kind is never taken by its place alone."""
    assert Pin.parse(text=f"sha256/{B64}", kind=PinKind.SPKI) == Pin(PinKind.SPKI, DIGEST)
    assert Pin.from_certificate(data=CERTIFICATE, kind=PinKind.SPKI) == KEY_PIN
    for make, data in [(Pin.parse, f"sha256/{B64}"), (Pin.from_certificate, CERTIFICATE)]:
        with pytest.raises(TypeError, match="positional"):
            make(data, PinKind.SPKI)


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(33), "a" * 32, bytearray(32), None])
def test_digest_is_32_bytes(digest):
    """A pin holds exactly 32 bytes, and bytes only."""
    with pytest.raises(PinError, match="the digest of a pin is 32 bytes of SHA-256"):
        Pin(PinKind.SPKI, digest)


def test_kind_may_be_text():
    """A text becomes the kind that it names, so that the pin prints as what it is; another one is refused."""
    pin = Pin("certificate", DIGEST)
    assert pin.kind is PinKind.CERTIFICATE
    assert str(pin) == HEX
    for kind in ("SPKI", "", None, 5):
        with pytest.raises(PinError) as caught:
            Pin(kind, DIGEST)
        assert str(caught.value) == f"{kind!r} is no kind of pin: those are 'spki' and 'certificate'"


def test_pins_are_values():
    """Pins compare and sort by kind and digest, and cannot be changed."""
    low, high = Pin(PinKind.SPKI, bytes(32)), Pin(PinKind.SPKI, b"\1" * 32)
    assert sorted([high, low]) == [low, high]
    assert len({low, Pin(PinKind.SPKI, bytes(32)), Pin(PinKind.CERTIFICATE, bytes(32))}) == 2
    with pytest.raises(AttributeError):
        low.digest = high.digest


@pytest.mark.parametrize(
    "data", [CERTIFICATE, CERTIFICATE_PEM, CERTIFICATE_PEM.encode(), f"text é\n{CERTIFICATE_PEM}\n"]
)
def test_from_certificate(data):
    """A certificate, PEM or DER, gives the pin of its key or of itself."""
    assert Pin.from_certificate(data) == KEY_PIN
    whole = Pin.from_certificate(data, kind=PinKind.CERTIFICATE)
    assert whole == Pin(PinKind.CERTIFICATE, hashlib.sha256(CERTIFICATE).digest())


@pytest.mark.parametrize("data", [SPKI, SPKI_PEM, SPKI_PEM.decode()], ids=["der", "pem", "text"])
def test_from_public_key(data):
    """A public key, PEM or DER, gives its pin."""
    assert Pin.from_public_key(data) == KEY_PIN


@pytest.mark.parametrize("data", [REQUEST_DER, REQUEST_PEM, REQUEST_PEM.replace("CERTIFICATE R", "NEW CERTIFICATE R")])
def test_from_csr(data):
    """A signing request under either label gives the pin of its key."""
    assert Pin.from_csr(data) == KEY_PIN


@pytest.mark.parametrize("make", [Pin.from_certificate, Pin.from_public_key, Pin.from_csr])
def test_broken_der_is_a_pin_error(make):
    """DER that does not parse is a PinError with the place."""
    with pytest.raises(PinError, match=r"^no pin can be made: the .*, at byte 0$") as caught:
        make(b"no DER")
    assert isinstance(caught.value.__cause__, CertificateError)
    assert isinstance(caught.value, InputError)


def test_one_kind_of_der_is_not_taken_for_another():
    """A certificate is not a key, a key not a request, and a request not a certificate."""
    for make, data in [(Pin.from_public_key, CERTIFICATE), (Pin.from_csr, SPKI), (Pin.from_certificate, REQUEST_DER)]:
        with pytest.raises(PinError, match="no pin can be made"):
            make(data)


@pytest.mark.parametrize(
    ("make", "data", "reason"),
    [
        (Pin.from_certificate, "", "expected one PEM block 'CERTIFICATE', found no PEM block"),
        (
            Pin.from_certificate,
            CERTIFICATE_PEM * 2,
            "expected one PEM block 'CERTIFICATE', found CERTIFICATE, CERTIFICATE",
        ),
        (Pin.from_csr, CERTIFICATE_PEM, "expected one PEM block 'CERTIFICATE REQUEST', found CERTIFICATE"),
        (
            Pin.from_public_key,
            "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----",
            "expected one PEM block 'PUBLIC KEY', found EC PRIVATE KEY; make it with: openssl pkey -in key.pem -pubout",
        ),
        (
            Pin.from_certificate,
            b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
            "the PEM block 'CERTIFICATE' is not base64",
        ),
        (
            Pin.from_csr,
            "-----BEGIN NEW CERTIFICATE REQUEST-----\n!\n-----END NEW CERTIFICATE REQUEST-----",
            "the PEM block 'CERTIFICATE REQUEST' is not base64",
        ),
        (
            Pin.from_certificate,
            "-----BEGIN CERTIFICATE-----\né\n-----END CERTIFICATE-----",
            "the PEM block 'CERTIFICATE' is not base64",
        ),
    ],
)
def test_wrong_pem(make, data, reason):
    """PEM with no, several or other blocks is refused, and says what was found."""
    with pytest.raises(PinError) as caught:
        make(data)
    assert str(caught.value) == reason


def test_wanted_block_is_found_among_others():
    """Other blocks beside the one that is wanted do no harm."""
    assert Pin.from_certificate(SPKI_PEM.decode() + CERTIFICATE_PEM) == KEY_PIN
