"""
Every format by name, and the way from one to another: read, then write, with the losses of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pinset._errors import Fault, PolicyError
from pinset._policy import Policy
from pinset.formats.android import read_android, read_trustkit_android, write_android, write_trustkit_android
from pinset.formats.apple import read_apple, write_apple
from pinset.formats.curl import read_curl, write_curl
from pinset.formats.exchange import Circumstances, Exported, Imported, as_text
from pinset.formats.hpkp import read_hpkp, write_hpkp
from pinset.formats.json import read_json, write_json
from pinset.formats.okhttp import read_okhttp, write_okhttp
from pinset.formats.tlsa import read_tlsa, write_tlsa
from pinset.formats.toml import read_toml, write_toml
from pinset.formats.trustkit import read_trustkit, write_trustkit

_Reader = Callable[[str | bytes, Circumstances, str], Imported]
_Writer = Callable[[Policy, Circumstances], Exported]


@dataclass(frozen=True, slots=True)
class Format:
    """
    One format.

    Attributes:
        title: What it is, in words.
        read: From its data, what surrounds it, and the name of the source.
        write: From a policy and what surrounds it.
    """

    title: str
    read: _Reader
    write: _Writer


def _host(circumstances: Circumstances, name: str) -> str:
    if circumstances.host is None:
        raise PolicyError([Fault("", f"{name} does not say of which host it speaks", "name it with --host")])
    return circumstances.host


def _read_hpkp(data: str | bytes, circumstances: Circumstances, source: str) -> Imported:
    if circumstances.now is None:
        raise PolicyError([Fault("", "max-age counts from now, and the present instant is not given")], source=source)
    return read_hpkp(data, host=_host(circumstances, "a header"), now=circumstances.now, source=source)


FORMATS: Mapping[str, Format] = {
    "toml": Format(
        "a policy file",
        lambda data, _, source: Imported(read_toml(_native(data, source), source=source)),
        lambda policy, _: Exported(write_toml(policy)),
    ),
    "json": Format(
        "a policy file",
        lambda data, _, source: Imported(read_json(_native(data, source), source=source)),
        lambda policy, _: Exported(write_json(policy)),
    ),
    "android": Format(
        "Android's network_security_config.xml",
        lambda data, _, source: read_android(data, source=source),
        lambda policy, _: write_android(policy),
    ),
    "trustkit-android": Format(
        "the same with TrustKit-Android's element",
        lambda data, _, source: read_trustkit_android(data, source=source),
        lambda policy, _: write_trustkit_android(policy),
    ),
    "apple": Format(
        "NSPinnedDomains of an Info.plist", lambda data, _, source: read_apple(data, source=source), write_apple
    ),
    "trustkit": Format(
        "TSKConfiguration of an Info.plist",
        lambda data, _, source: read_trustkit(data, source=source),
        lambda policy, _: write_trustkit(policy),
    ),
    "okhttp": Format(
        "the calls of a CertificatePinner.Builder",
        lambda data, _, source: read_okhttp(data, source=source),
        lambda policy, _: write_okhttp(policy),
    ),
    "curl": Format(
        "the argument of curl --pinnedpubkey",
        lambda data, around, source: read_curl(data, host=_host(around, "a curl option"), source=source),
        write_curl,
    ),
    "hpkp": Format("the Public-Key-Pins header", _read_hpkp, write_hpkp),
    "tlsa": Format(
        "TLSA records", lambda data, around, source: read_tlsa(data, port=around.port, source=source), write_tlsa
    ),
}


def _native(data: str | bytes, source: str) -> str:
    """Our own formats have no limit of size: the file is the user's."""
    return as_text(data, source=source, most=len(data))


def convert(
    data: str | bytes, source_format: str, target_format: str, around: Circumstances, *, source: str = ""
) -> Exported:
    """
    Write in one format what stands in another.

    Args:
        data: The text or file.
        source_format: A key of `FORMATS`.
        target_format: A key of `FORMATS`.
        around: What the two leave to their surroundings.
        source: The name of *data*, for the error.

    Returns:
        The text, with the losses of reading and of writing.

    Raises:
        PolicyError: *data* is not of its format, or the target has no words for it; with every fault.
        KeyError: There is no such format.
    """
    imported = FORMATS[source_format].read(data, around, source)
    exported = FORMATS[target_format].write(imported.policy, around)
    return Exported(exported.text, (*imported.losses, *exported.losses))
