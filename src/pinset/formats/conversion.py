"""
Every format by name, and the way from one to another: read, then write, with the losses of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

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


class FormatName(StrEnum):
    """
    What a format is called.
    """

    TOML = "toml"
    JSON = "json"
    ANDROID = "android"
    TRUSTKIT_ANDROID = "trustkit-android"
    APPLE = "apple"
    TRUSTKIT = "trustkit"
    OKHTTP = "okhttp"
    CURL = "curl"
    HPKP = "hpkp"
    TLSA = "tlsa"


@dataclass(frozen=True, slots=True)
class Format:
    """
    One format.

    Attributes:
        read: From its data, what surrounds it, and the name of the source.
        write: From a policy and what surrounds it.
    """

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


FORMATS: Mapping[FormatName, Format] = {
    FormatName.TOML: Format(  # a policy file
        lambda data, _, source: Imported(read_toml(_native(data, source), source=source)),
        lambda policy, _: Exported(write_toml(policy)),
    ),
    FormatName.JSON: Format(  # a policy file
        lambda data, _, source: Imported(read_json(_native(data, source), source=source)),
        lambda policy, _: Exported(write_json(policy)),
    ),
    FormatName.ANDROID: Format(  # Android's network_security_config.xml
        lambda data, _, source: read_android(data, source=source),
        lambda policy, _: write_android(policy),
    ),
    FormatName.TRUSTKIT_ANDROID: Format(  # the same with TrustKit-Android's element
        lambda data, _, source: read_trustkit_android(data, source=source),
        lambda policy, _: write_trustkit_android(policy),
    ),
    FormatName.APPLE: Format(  # NSPinnedDomains of an Info.plist
        lambda data, _, source: read_apple(data, source=source), write_apple
    ),
    FormatName.TRUSTKIT: Format(  # TSKConfiguration of an Info.plist
        lambda data, _, source: read_trustkit(data, source=source),
        lambda policy, _: write_trustkit(policy),
    ),
    FormatName.OKHTTP: Format(  # the calls of a CertificatePinner.Builder
        lambda data, _, source: read_okhttp(data, source=source),
        lambda policy, _: write_okhttp(policy),
    ),
    FormatName.CURL: Format(  # the argument of curl --pinnedpubkey
        lambda data, around, source: read_curl(data, host=_host(around, "a curl option"), source=source),
        write_curl,
    ),
    FormatName.HPKP: Format(_read_hpkp, write_hpkp),
    FormatName.TLSA: Format(  # TLSA records
        lambda data, around, source: read_tlsa(data, port=around.port, source=source), write_tlsa
    ),
}


def _native(data: str | bytes, source: str) -> str:
    """Our own formats have no limit of size: the file is the user's."""
    return as_text(data, source=source, most=len(data))


def convert(
    data: str | bytes, source_format: FormatName, target_format: FormatName, around: Circumstances, *, source: str = ""
) -> Exported:
    """
    Write in one format what stands in another.

    Args:
        data: The text or file.
        source_format: What *data* is.
        target_format: What to write.
        around: What the two leave to their surroundings.
        source: The name of *data*, for the error.

    Returns:
        The text, with the losses of reading and of writing.

    Raises:
        PolicyError: *data* is not of its format, or the target has no words for it; with every fault.
    """
    imported = FORMATS[source_format].read(data, around, source)
    exported = FORMATS[target_format].write(imported.policy, around)
    return Exported(exported.text, (*imported.losses, *exported.losses))
