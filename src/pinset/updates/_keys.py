"""
Signing keys of a repository: Ed25519, encrypted with a passphrase wherever they lie.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from securesystemslib.signer import CryptoSigner, SSlibKey

from pinset._errors import InputError
from pinset.operate.backup import check_passphrase


def make_signer() -> CryptoSigner:
    """
    A new key.
    """
    return CryptoSigner.generate_ed25519()


def lock_up(signer: CryptoSigner, passphrase: bytes) -> bytes:
    """
    The private key for a file: PKCS #8 in PEM, encrypted.

    Args:
        signer: The key.
        passphrase: At least 8 bytes.

    Raises:
        InputError: The passphrase is too short to protect anything.
    """
    check_passphrase(passphrase)
    key = serialization.load_pem_private_key(signer.private_bytes, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )


def unlock(pem: bytes, passphrase: bytes, *, source: str) -> CryptoSigner:
    """
    The key of a file.

    Args:
        pem: What the file holds.
        passphrase: What it is encrypted with.
        source: Its name, for the error.

    Raises:
        InputError: It holds no Ed25519 key, or the passphrase is another.
    """
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source} cannot be read as an encrypted private key: {error}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InputError(f"{source} holds a key of another kind; pinset repo makes Ed25519 keys")
    return CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))
