"""
`PinReport`: what leaves the process when a pin check is worth telling.

Rules of this module:

1. The nine keys of RFC 7469 section 3 are always there, under their names and with their meaning, so that a collector
   made for HPKP or TrustKit understands the document. What we add has keys of its own.
2. A report names hosts, keys and certificates. It never holds a path, a query, a header or an address of a client.
3. It is made from a `Verdict` and decides nothing; whatever is costly is computed when a sink asks for it.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from pinset._hosts import Scope
from pinset._pins import Pin, PinKind
from pinset._policy import Mode, PinSet
from pinset._verdict import Decision, Outcome, Verdict

JSON: TypeAlias = "bool | int | str | Sequence[JSON] | dict[str, JSON] | None"

_INVALID = 3
# TSKTrustEvaluationResult of TrustKit (TSKTrustDecision.h), by its numbers.
_VALIDATION_RESULTS = {
    Outcome.MATCHED: 0,  # Success
    Outcome.MISMATCHED: 1,  # FailedNoMatchingPin
    Outcome.UNVERIFIED: 2,  # FailedInvalidCertificateChain
    Outcome.FAILED: _INVALID,  # ErrorInvalidParameters
    Outcome.UNREADABLE: 5,  # ErrorCouldNotGenerateSpkiHash
}


def is_reported(verdict: Verdict) -> bool:
    """
    Whether a check is worth a report: whatever did not end in a match of a rule that is enforced and has not expired.

    Hosts without a rule and excluded ones are never reported.
    """
    rule = verdict.rule
    if rule is None or rule.mode is Mode.OFF:
        return False
    return not (verdict.decision is Decision.ALLOW and rule.mode is Mode.ENFORCE and not verdict.expired)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinReport:
    """
    One report (RFC 7469 section 3), made by a `Reporter` and handed to every sink.

    Attributes:
        verdict: What was found and decided, with the rule and the verified chain.
        port: The port of the host; 0 where it is not known.
        served_chain: The certificates as the peer sent them, DER, unverified; empty where they are not known.
        suppressed: How many reports of the same kind this sink was not given since the last one that reached it.
    """

    verdict: Verdict
    port: int = 0
    served_chain: tuple[bytes, ...] = ()
    suppressed: int = 0

    @property
    def rule(self) -> PinSet:
        """
        The pin set that applies. There is no report without one.
        """
        assert self.verdict.rule is not None
        return self.verdict.rule

    @property
    def hostname(self) -> str:
        """
        The canonical host that was to be reached.
        """
        return self.verdict.host

    @property
    def noted_hostname(self) -> str:
        """
        The host that the rule was made for: its name without stars.
        """
        return self.rule.patterns[0].base

    @property
    def include_subdomains(self) -> bool:
        """
        Whether the rule covers anything below its host.
        """
        return any(pattern.scope is not Scope.HOST for pattern in self.rule.patterns)

    @property
    def known_pins(self) -> tuple[Pin, ...]:
        """
        The pins of the rule, each once.
        """
        return tuple(dict.fromkeys(self.rule.all_pins))

    @property
    def is_violation(self) -> bool:
        """
        Whether something is wrong with the connection. Otherwise its pins matched, under a rule that is not enforced
        or has expired.
        """
        return self.verdict.outcome is not Outcome.MATCHED or self.verdict.decision is Decision.REFUSE

    def to_dict(self) -> dict[str, JSON]:
        """
        The report as a JSON document; see the reference for its keys.
        """
        verdict, pins = self.verdict, self.known_pins
        document: dict[str, JSON] = {
            "date-time": _rfc3339(verdict.at),
            "hostname": self.hostname,
            "port": self.port,
            "effective-expiration-date": _rfc3339(self.rule.expires) if self.rule.expires else None,
            "include-subdomains": self.include_subdomains,
            "noted-hostname": self.noted_hostname,
            "served-certificate-chain": _pem(self.served_chain),
            "validated-certificate-chain": _pem([certificate.der for certificate in verdict.chain]),
            "known-pins": [_hpkp(pin) for pin in pins if pin.kind is PinKind.SPKI],
            "enforce-pinning": verdict.enforced,
            "validation-result": _VALIDATION_RESULTS.get(verdict.outcome, _INVALID),
            "rule": self.rule.name,
            "outcome": verdict.outcome.value,
            "decision": verdict.decision.value,
            "detail": verdict.detail,
            "suppressed-count": self.suppressed,
        }
        if fingerprints := [str(pin) for pin in pins if pin.kind is PinKind.CERTIFICATE]:
            document["known-certificates"] = fingerprints
        return document

    def to_json(self) -> str:
        """
        `to_dict` as text, in one line.
        """
        return json.dumps(self.to_dict(), separators=(",", ":"))


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _pem(chain: Sequence[bytes]) -> list[str]:
    return [ssl.DER_cert_to_PEM_cert(der) for der in chain]


def _hpkp(pin: Pin) -> str:
    return f'pin-sha256="{base64.b64encode(pin.digest).decode("ascii")}"'
