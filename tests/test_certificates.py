"""
The DER walk: the key as it is encoded, the dates, and nothing but `CertificateError`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import re
import ssl
import warnings
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pinset import CertificateError
from pinset._certificates import (
    checked_spki,
    read_certificate,
    read_chain,
    spki_of_certificate,
    spki_of_request,
)
from pinset.testing import Authority

SEQUENCE, INTEGER, BIT_STRING, OID, NULL = 0x30, 0x02, 0x03, 0x06, 0x05
EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")
P_256 = bytes.fromhex("06082a8648ce3d030107")
P_192 = bytes.fromhex("06082a8648ce3d030101")
RSA = bytes.fromhex("06092a864886f70d010101")
RSA_PSS = bytes.fromhex("06092a864886f70d01010a")
UNKNOWN = bytes.fromhex("06032a0304")

DER = Authority("Walk").issue("example.com").chain[0]


def tlv(tag: int, *contents: bytes) -> bytes:
    """One DER element."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    octets = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def parts(element: bytes) -> list[bytes]:
    """The elements inside an element."""

    def header(data: bytes) -> tuple[int, int]:
        if data[1] < 0x80:
            return 2, data[1]
        octets = data[1] & 0x7F
        return 2 + octets, int.from_bytes(data[2 : 2 + octets], "big")

    rest, found = element[header(element)[0] :], []
    while rest:
        start, length = header(rest)
        found.append(rest[: start + length])
        rest = rest[start + length :]
    return found


def with_field(index: int, *replacement: bytes, der: bytes = DER) -> bytes:
    """The certificate with another field at *index* of its TBSCertificate; its signature is of no matter here."""
    tbs, algorithm, signature = parts(der)
    fields = parts(tbs)
    fields[index : index + 1] = replacement
    return tlv(SEQUENCE, tlv(SEQUENCE, *fields), algorithm, signature)


def with_spki(spki: bytes) -> bytes:
    return with_field(6, spki)


def with_times(*times: bytes) -> bytes:
    return with_field(4, tlv(SEQUENCE, *times))


def spki(algorithm: bytes, key: bytes) -> bytes:
    return tlv(SEQUENCE, algorithm, tlv(BIT_STRING, b"\0", key))


def public(key, format_=serialization.PublicFormat.SubjectPublicKeyInfo) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, format_)


def point(form: serialization.PublicFormat) -> bytes:
    return ec.derive_private_key(7, ec.SECP256R1()).public_key().public_bytes(serialization.Encoding.X962, form)


UNCOMPRESSED = point(serialization.PublicFormat.UncompressedPoint)
COMPRESSED = point(serialization.PublicFormat.CompressedPoint)
HYBRID = bytes([6 | UNCOMPRESSED[-1] & 1]) + UNCOMPRESSED[1:]
EXPLICIT_P_256 = tlv(
    SEQUENCE,
    tlv(INTEGER, b"\1"),
    tlv(
        SEQUENCE,
        bytes.fromhex("06072a8648ce3d0101"),
        tlv(INTEGER, bytes.fromhex("00ffffffff00000001000000000000000000000000ffffffffffffffffffffffff")),
    ),
    tlv(
        SEQUENCE,
        tlv(0x04, bytes.fromhex("ffffffff00000001000000000000000000000000fffffffffffffffffffffffc")),
        tlv(0x04, bytes.fromhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b")),
    ),
    tlv(
        0x04,
        bytes.fromhex("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
    ),
    tlv(INTEGER, bytes.fromhex("00ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")),
)
RSA_KEY = public(rsa.generate_private_key(65537, 2048), serialization.PublicFormat.PKCS1)

KEYS = {
    "ec": spki(tlv(SEQUENCE, EC_PUBLIC_KEY, P_256), UNCOMPRESSED),
    "ec-compressed": spki(tlv(SEQUENCE, EC_PUBLIC_KEY, P_256), COMPRESSED),
    "ec-hybrid": spki(tlv(SEQUENCE, EC_PUBLIC_KEY, P_256), HYBRID),
    "ec-explicit": spki(tlv(SEQUENCE, EC_PUBLIC_KEY, EXPLICIT_P_256), UNCOMPRESSED),
    "ec-not-on-the-curve": spki(tlv(SEQUENCE, EC_PUBLIC_KEY, P_256), b"\4" + b"\1" * 64),
    "p-192": spki(tlv(SEQUENCE, EC_PUBLIC_KEY, P_192), b"\4" + b"\1" * 48),
    "p-521": public(ec.generate_private_key(ec.SECP521R1())),
    "rsa": spki(tlv(SEQUENCE, RSA, tlv(NULL)), RSA_KEY),
    "rsa-without-null": spki(tlv(SEQUENCE, RSA), RSA_KEY),
    "rsa-pss": spki(tlv(SEQUENCE, RSA_PSS), RSA_KEY),
    "rsa-pss-with-parameters": spki(tlv(SEQUENCE, RSA_PSS, tlv(SEQUENCE)), RSA_KEY),
    "rsa-65536-bits": spki(
        tlv(SEQUENCE, RSA, tlv(NULL)), tlv(SEQUENCE, tlv(INTEGER, b"\1" * 8192), tlv(INTEGER, b"\3"))
    ),
    "ed25519": public(ed25519.Ed25519PrivateKey.generate()),
    "unknown": spki(tlv(SEQUENCE, UNKNOWN), b"whatever this is"),
    "empty": tlv(SEQUENCE, tlv(SEQUENCE), tlv(BIT_STRING)),
}


@pytest.mark.parametrize("name", KEYS)
def test_key_is_hashed_as_it_is_encoded(name):
    """Whatever the key is, and whether or not any library could load it, its bytes are hashed as they stand."""
    der = with_spki(KEYS[name])
    assert spki_of_certificate(der) == KEYS[name]
    certificate = read_certificate(der)
    assert certificate.spki_sha256 == hashlib.sha256(KEYS[name]).digest()
    assert certificate.certificate_sha256 == hashlib.sha256(der).digest()
    assert certificate.der == der
    assert checked_spki(KEYS[name]) == KEYS[name]
    assert certificate.subject


def test_spellings_of_one_key_are_different_pins():
    """The same point or modulus in another encoding is another pin, as everywhere else in pinning."""
    assert len({read_certificate(with_spki(der)).spki_sha256 for der in KEYS.values()}) == len(KEYS)


def test_key_that_cryptography_reads_hashes_as_it_writes():
    """For an ordinary certificate, the pin is that of cryptography's own encoding."""
    encoded = (
        x509.load_der_x509_certificate(DER)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert spki_of_certificate(DER) == encoded


def test_every_root_of_certifi():
    """Every root that clients trust is read, with the dates and, where cryptography re-encodes the same, the key."""
    bundle = Path(certifi.where()).read_text(encoding="ascii")
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", bundle, re.DOTALL)
    ders = [ssl.PEM_cert_to_DER_cert(block) for block in blocks]
    assert len(ders) > 80
    agreed = 0
    for der in ders:
        certificate = read_certificate(der)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = x509.load_der_x509_certificate(der)
            encoded = theirs.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        assert spki_of_certificate(der) in theirs.tbs_certificate_bytes
        assert certificate.not_before == theirs.not_valid_before_utc
        assert certificate.not_after == theirs.not_valid_after_utc
        assert 0 < len(certificate.subject) <= 200
        agreed += certificate.spki_sha256 == hashlib.sha256(encoded).digest()
    assert agreed == len(ders)


def test_version_1_is_read():
    """A certificate without the version field, X.509 v1, has its key where it is expected."""
    assert spki_of_certificate(with_field(0)) == spki_of_certificate(DER)


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        (0x17, b"500101000000Z", dt.datetime(1950, 1, 1, tzinfo=dt.UTC)),
        (0x17, b"491231235959Z", dt.datetime(2049, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
        (0x17, b"690101000000Z", dt.datetime(1969, 1, 1, tzinfo=dt.UTC)),
        (0x17, b"000229120000Z", dt.datetime(2000, 2, 29, 12, tzinfo=dt.UTC)),
        (0x18, b"20500101000000Z", dt.datetime(2050, 1, 1, tzinfo=dt.UTC)),
        (0x18, b"99991231235959Z", dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
    ],
)
def test_times(tag, text, expected):
    """Two-digit years from 50 on are of the last century; four-digit years are what they say."""
    certificate = read_certificate(with_times(tlv(tag, text), tlv(0x18, b"99991231235959Z")))
    assert certificate.not_before == expected
    assert certificate.not_before.utcoffset() == dt.timedelta(0)
    assert certificate.not_after == dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "text",
    [
        b"2501010000Z",
        b"250101000000+0000",
        b"250101000000",
        b"250101000000z",
        b"251301000000Z",
        b"250230000000Z",
        b"250101240000Z",
        b"25010100000\xb2Z",
        b"2501010000 0Z",
        b"",
        b"5",
    ],
)
def test_times_of_another_form_are_refused(text):
    """Times without seconds or Zulu, with another offset, or of no day of the calendar are refused."""
    with pytest.raises(CertificateError, match="the certificate has a validity in an unknown form, at byte"):
        read_certificate(with_times(tlv(0x17, text), tlv(0x17, b"250101000000Z")))


@pytest.mark.parametrize("text", [b"20250101000000.5Z", b"250101000000Z", b"202501010000Z"])
def test_generalized_times_of_another_form_are_refused(text):
    """A GeneralizedTime has four digits for the year, seconds, and no fractions."""
    with pytest.raises(CertificateError, match="unknown form"):
        read_certificate(with_times(tlv(0x18, text), tlv(0x17, b"250101000000Z")))


@pytest.mark.parametrize("times", [(), (tlv(0x17, b"250101000000Z"),), (tlv(0x0C, b"250101000000Z"),) * 2])
def test_validity_without_two_times_is_refused(times):
    """The validity holds two times."""
    with pytest.raises(CertificateError, match="has a validity that is not a time"):
        read_certificate(with_times(*times))


def test_validity_with_a_third_time_is_refused():
    """The validity holds nothing else."""
    with pytest.raises(CertificateError, match="has bytes after its last field"):
        read_certificate(with_times(*[tlv(0x17, b"250101000000Z")] * 3))


@pytest.mark.parametrize("index", range(1, 7))
def test_missing_field_is_refused(index):
    """A certificate without one of its fields is refused."""
    with pytest.raises(CertificateError):
        read_certificate(with_field(index))


@pytest.mark.parametrize("index", range(1, 7))
def test_field_of_another_type_is_refused(index):
    """A field under the tag next to its own is not taken for it."""
    field = parts(parts(DER)[0])[index]
    for step in (-1, 1):
        with pytest.raises(CertificateError, match=r"lacks an expected field \(tag 0x"):
            read_certificate(with_field(index, bytes([field[0] + step]) + field[1:]))


@pytest.mark.parametrize("index", range(3))
def test_missing_part_is_refused(index):
    """A certificate without body, algorithm or signature is refused."""
    elements = parts(DER)
    del elements[index]
    with pytest.raises(CertificateError, match=r"lacks an expected field \(tag 0x"):
        read_certificate(tlv(SEQUENCE, *elements))


@pytest.mark.parametrize("fields", [(), (tlv(0xA1, tlv(INTEGER, b"\2")), *parts(parts(DER)[0])[1:])])
def test_other_first_field_is_refused(fields):
    """Where neither a version nor a serial number stands, a serial number is missing."""
    with pytest.raises(CertificateError, match=r"lacks an expected field \(tag 0x02\)"):
        read_certificate(tlv(SEQUENCE, tlv(SEQUENCE, *fields), *parts(DER)[1:]))


@pytest.mark.parametrize(
    "der",
    [
        DER + b"\0",
        tlv(SEQUENCE, *parts(DER), tlv(NULL)),
        with_spki(tlv(SEQUENCE, *parts(KEYS["ec"]), tlv(NULL))),
    ],
)
def test_bytes_left_over_are_refused(der):
    """Nothing follows the last field of the certificate or of its key."""
    with pytest.raises(CertificateError, match="has bytes after its last field"):
        read_certificate(der)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x30\x80", "has a length that is not DER"),
        (b"\x30\x85\0\0\0\0\0", "has a length that is not DER"),
        (b"\x30\xff", "has a length that is not DER"),
        (b"\x30\x81", "has a length that is not DER"),
        (b"\x30\x82\x01", "has a length that is not DER"),
        (b"\x30\x81\x7f" + bytes(127), "has a length that is not minimal"),
        (b"\x30\x82\x00\xff" + bytes(255), "has a length that is not minimal"),
        (b"\x30\x84\x00\x01\x00\x00" + bytes(65536), "has a length that is not minimal"),
        (b"\x30\x81\x80" + bytes(127), "is cut short"),
        (b"\x30\x84\xff\xff\xff\xff", "is cut short"),
        (b"\x30\x05" + bytes(4), "is cut short"),
        (b"\x30", "lacks an expected field"),
        (b"", "lacks an expected field"),
        (b"\x31\x00", "lacks an expected field"),
        (b"\x30\x00", "lacks an expected field"),
        (b"\x30\x81\x80" + bytes(128), "lacks an expected field"),
    ],
)
def test_lengths(header, reason):
    """Lengths are definite, minimal, of at most four bytes, and within what is there."""
    for function, what in [
        (read_certificate, "certificate"),
        (checked_spki, "public key"),
        (spki_of_request, "certification request"),
    ]:
        with pytest.raises(CertificateError) as caught:
            function(header)
        assert str(caught.value).startswith(f"the {what} {reason}")
        assert str(caught.value).endswith(f", at byte {caught.value.offset}")


@pytest.mark.parametrize(("length", "header"), [(127, "307f"), (128, "308180"), (255, "3081ff"), (256, "30820100")])
def test_lengths_at_the_boundaries_are_read(length, header):
    """The short form ends at 127, and every long form begins where the shorter one ends."""
    algorithm, room = tlv(SEQUENCE), range(length)
    key = next(bits for size in room if len(bits := tlv(BIT_STRING, bytes(size))) == length - len(algorithm))
    der = tlv(SEQUENCE, algorithm, key)
    assert der.hex().startswith(header)
    assert checked_spki(der) == der


def test_nested_element_longer_than_its_parent_is_refused():
    """An element ends where its parent ends at the latest."""
    inner = b"\x30\x00\x03\x05" + bytes(3)
    with pytest.raises(CertificateError, match="is cut short, at byte 4") as caught:
        checked_spki(tlv(SEQUENCE, inner))
    assert caught.value.offset == 4
    with pytest.raises(CertificateError, match="is cut short"):
        read_certificate(with_spki(tlv(SEQUENCE, inner)))


def test_indefinite_length_is_refused():
    """OpenSSL reads BER's indefinite lengths; the walk does not."""
    content = DER[4:]
    with pytest.raises(CertificateError, match="has a length that is not DER, at byte 0"):
        read_certificate(b"\x30\x80" + content + b"\0\0")


def test_long_form_of_the_key_is_refused():
    """A key with a length of more bytes than needed would hash differently for different writers."""
    key = KEYS["ec"]
    assert key[1] < 0x80
    with pytest.raises(CertificateError, match="has a length that is not minimal"):
        read_certificate(with_spki(b"\x30\x81" + key[1:]))


def test_truncation_at_every_byte_is_a_certificate_error():
    """However much of a certificate is missing, it is a CertificateError."""
    for end in range(len(DER)):
        with pytest.raises(CertificateError) as caught:
            spki_of_certificate(DER[:end])
        assert 0 <= caught.value.offset <= end


def test_mutations_raise_nothing_but_certificate_error():
    """A changed, dropped or inserted byte gives a certificate or a CertificateError, never anything else."""
    chance = random.Random(20260101)
    refused = 0
    for _ in range(6000):
        der = bytearray(DER)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(len(der), 400))
            match chance.randrange(3):
                case 0:
                    der[at] = chance.randrange(256)
                case 1:
                    del der[at]
                case 2:
                    der.insert(at, chance.randrange(256))
        try:
            certificate = read_certificate.__wrapped__(bytes(der))
        except CertificateError as error:
            assert 0 <= error.offset <= len(der)
            refused += 1
        else:
            assert certificate.certificate_sha256 == hashlib.sha256(der).digest()
            assert certificate.not_before.tzinfo is dt.UTC
    assert 1000 < refused < 6000


def test_random_bytes_raise_nothing_but_certificate_error():
    """Bytes that are no certificate at all are a CertificateError."""
    chance = random.Random(7)
    for _ in range(500):
        with pytest.raises(CertificateError):
            spki_of_certificate(b"\x30" + chance.randbytes(chance.randrange(60)))


def request(key=None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("example.com")]), critical=False)
    made = builder.sign(key or ec.derive_private_key(7, ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_request():
    """The key of a certification request is found byte for byte."""
    assert spki_of_request(request()) == KEYS["ec"]
    assert KEYS["ec"] == public(ec.derive_private_key(7, ec.SECP256R1()))


def test_broken_request_is_a_certificate_error():
    """A request that is cut, or has bytes left over on any level, is refused."""
    der = request()
    for end in range(len(der)):
        with pytest.raises(CertificateError):
            spki_of_request(der[:end])
    info, algorithm, signature = parts(der)
    extra = tlv(NULL)
    version, subject, key, attributes = parts(info)
    for broken in (
        der + b"\0",
        tlv(SEQUENCE, info, algorithm, signature, extra),
        tlv(SEQUENCE, tlv(SEQUENCE, *parts(info), extra), algorithm, signature),
        tlv(SEQUENCE, tlv(SEQUENCE, version, subject, key), algorithm, signature),
        tlv(SEQUENCE, tlv(SEQUENCE, version, subject, tlv(SEQUENCE), attributes), algorithm, signature),
        tlv(SEQUENCE, info, signature),
        tlv(SEQUENCE, info, algorithm),
    ):
        with pytest.raises(CertificateError):
            spki_of_request(broken)


@pytest.mark.parametrize(
    "der", [tlv(SEQUENCE), tlv(SEQUENCE, tlv(SEQUENCE)), tlv(SEQUENCE, tlv(BIT_STRING)), KEYS["ec"] + b"\0"]
)
def test_broken_key_is_a_certificate_error(der):
    """A public key is an algorithm and a bit string, and nothing more."""
    with pytest.raises(CertificateError, match="the public key"):
        checked_spki(der)


def test_chain_is_read_in_order():
    """A chain keeps its order, and an empty one is empty."""
    ders = Authority("Chain").issue("example.com").chain
    assert [certificate.der for certificate in read_chain(tuple(ders))] == list(ders)
    assert read_chain(()) == ()


def test_broken_certificate_of_a_chain_is_named():
    """The error says which certificate of the chain cannot be read, and where."""
    with pytest.raises(CertificateError) as caught:
        read_chain((DER, DER, DER + b"\0"))
    assert str(caught.value) == (
        f"certificate 2 of the chain: the certificate has bytes after its last field, at byte {len(DER)}"
    )
    assert caught.value.offset == len(DER)
    assert isinstance(caught.value.__cause__, CertificateError)


def test_cache_is_bounded_and_keyed_by_the_whole_certificate():
    """1024 certificates and 512 chains are remembered, and a single bit of difference is another certificate."""
    assert read_certificate.cache_info().maxsize == 1024
    assert read_chain.cache_info().maxsize == 512
    assert read_certificate(DER) is read_certificate(bytes(bytearray(DER)))
    other = DER[:-1] + bytes([DER[-1] ^ 1])
    assert read_certificate(other).certificate_sha256 != read_certificate(DER).certificate_sha256
    assert read_certificate(other).spki_sha256 == read_certificate(DER).spki_sha256
    for number in range(1100):
        read_certificate(with_field(1, tlv(INTEGER, b"\1" + number.to_bytes(2, "big"))))
    assert read_certificate.cache_info().currsize == 1024


def test_repr_leaves_the_der_out():
    """A certificate in a log is two digests and two dates, not a kilobyte."""
    assert "der=" not in repr(read_certificate(DER))
    assert "spki_sha256=" in repr(read_certificate(DER))


def named(*values: str) -> bytes:
    """The certificate with another subject of common names."""
    oid = bytes.fromhex("0603550403")
    names = [tlv(0x31, tlv(SEQUENCE, oid, tlv(0x0C, value.encode()))) for value in values]
    return with_field(5, tlv(SEQUENCE, *names))


@pytest.mark.parametrize(
    ("values", "subject"),
    [
        (["example.com"], "CN=example.com"),
        ([], "(empty subject)"),
        (["a\x1b[31mb\n"], "CN=a\\x1b[31mb\\x0a"),
        (["a\u202eb"], "CN=a\\x202eb"),
        (["é"], "CN=é"),
        (["a" * 197], "CN=" + "a" * 197),
        (["a" * 198], "CN=" + "a" * 196 + "…"),
    ],
)
def test_subject(values, subject):
    """The subject is printed without control characters, in at most 200 characters."""
    assert read_certificate(named(*values)).subject == subject


def test_unreadable_subject_is_a_remark():
    """A certificate that cryptography refuses still has something to print."""
    assert read_certificate(with_field(5, tlv(SEQUENCE, tlv(NULL)))).subject == "(unreadable subject)"


def test_warnings_about_a_subject_stay_inside():
    """What cryptography warns about (here a negative serial number) does not reach the program."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_certificate(with_field(1, tlv(INTEGER, b"\xff"))).subject == "CN=example.com"
