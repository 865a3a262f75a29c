"""
Which rule of a policy applies to a host, why that one, and what would happen.

The rule is what `Policy.find` says; this module only gives the reasons in words, in the order of specificity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pinset._hosts import HostPattern, Scope, canonical_host
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Role, Unlisted

_REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What a policy does with one host.

    Attributes:
        host: Canonical.
        rule: The pin set that applies, or None.
        pattern: Its pattern that covers the host.
        passed_over: Patterns that cover the host, too, and are less specific.
        why: Why this rule and no other.
        consequences: What happens, by what is found: each a pair of a condition and a consequence.
    """

    host: str
    rule: PinSet | None
    pattern: HostPattern | None
    passed_over: tuple[HostPattern, ...]
    why: str
    consequences: tuple[tuple[str, str], ...]


def explain(policy: Policy, host: str, now: datetime) -> Explanation:
    """
    Say what *policy* does with *host*.

    Args:
        policy: The policy.
        host: A host in any spelling.
        now: The present instant, aware.

    Raises:
        HostError: *host* has no canonical form.
    """
    name = canonical_host(host)
    rule = policy.find(name)
    covering = sorted(
        (pattern for pin_set in policy.pin_sets for pattern in pin_set.patterns if pattern.matches(name)),
        key=_specificity,
        reverse=True,
    )
    pattern = covering[0] if covering else None
    return Explanation(
        host=name,
        rule=rule,
        pattern=pattern,
        passed_over=tuple(covering[1:]),
        why=_why(pattern, len(covering)),
        consequences=tuple(_consequences(policy, rule, now)),
    )


def _specificity(pattern: HostPattern) -> tuple[int, int]:
    """The longer base; at one base the host, then ``*.``, then ``**.``."""
    return len(pattern.base), (Scope.TREE, Scope.LABEL, Scope.HOST).index(pattern.scope)


def _why(pattern: HostPattern | None, count: int) -> str:
    if pattern is None:
        return "no pattern covers the host"
    meaning = {
        Scope.HOST: "it names the host itself",
        Scope.LABEL: f"the host is {pattern.base} with one label more",
        Scope.TREE: f"the host is {pattern.base} or below it",
    }[pattern.scope]
    return meaning if count == 1 else f"{meaning}, and it is the most specific of {count}; the others do not count"


def _consequences(policy: Policy, rule: PinSet | None, now: datetime) -> Iterator[tuple[str, str]]:
    if rule is None:
        is_denied = policy.unlisted is Unlisted.DENY
        yield (
            "any request",
            f'{_REFUSED}: unlisted = "deny"' if is_denied else 'let through without pins: unlisted = "allow"',
        )
        return
    yield "http:// or ws://", f"{_REFUSED}: without TLS there is no key"
    if rule.mode is Mode.OFF:
        yield "any verified chain", 'let through without pins: mode = "off"'
        return
    is_expired = rule.expires is not None and now >= rule.expires
    yield "a chain that does not verify", _REFUSED
    yield _wanted(rule), _on_match(rule, is_expired=is_expired)
    yield "any other verified chain", _on_mismatch(rule, is_expired=is_expired)
    if rule.expires is not None:
        when = f"{'since' if is_expired else 'from'} {rule.expires:%Y-%m-%d %H:%M %Z} on"
        yield when, _LATER[rule.on_expiry]


def _wanted(rule: PinSet) -> str:
    return "a verified chain with " + " and ".join(
        f"one of {len(requirement.pins)} {_NOUNS[requirement.role]}" for requirement in rule.requirements
    )


def _on_match(rule: PinSet, *, is_expired: bool) -> str:
    if is_expired and rule.on_expiry is OnExpiry.BLOCK and rule.mode is Mode.ENFORCE:
        return f"{_REFUSED}: the pin set has expired and blocks"
    return "let through"


def _on_mismatch(rule: PinSet, *, is_expired: bool) -> str:
    if rule.mode is Mode.REPORT_ONLY:
        return 'reported and let through: mode = "report-only"'
    if is_expired and rule.on_expiry is OnExpiry.UNPIN:
        return "reported and let through: the pin set has expired"
    return f"{_REFUSED} before a byte of the request has left"


_NOUNS = {
    Role.ANY: "keys in any certificate",
    Role.LEAF: "keys in the leaf",
    Role.CA: "keys in a CA",
    Role.CERTIFICATE: "certificates",
}
_LATER = {
    OnExpiry.UNPIN: "a mismatch is reported and let through",
    OnExpiry.BLOCK: "every connection is refused",
    OnExpiry.ENFORCE: "nothing changes, and a warning is due",
    None: "",
}
