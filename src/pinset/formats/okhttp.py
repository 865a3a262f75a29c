"""
OkHttp's ``CertificatePinner``: the ``.add("pattern", "sha256/…")`` calls of its builder, in Kotlin or Java.

The patterns are those of a policy, but *all* that match a host count together, where in a policy the most specific one
replaces the rest. A reader therefore gives each pattern the pins of every broader one, and a writer reports where a
narrower rule gains keys. There is no expiry, no report-only mode and no exclusion.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from pinset._errors import Fault, HostError, PinError, PolicyError
from pinset._hosts import HostPattern, Scope, parent
from pinset._pins import Pin, PinKind
from pinset._policy import Mode, PinSet, Policy, Unlisted
from pinset.formats._differences import (
    keep_any_pins,
    lose_expiry,
    mode_becomes_enforced,
    note_rotation,
    note_unlisted,
)
from pinset.formats.exchange import MOST_FAULTS, Effect, Exported, Imported, Loss, as_text, check_pin_count

# Linear on any input: what is never closed is taken to the end of its line, or of the text, and not tried again.
_COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_STRING = r'"(?:[^"\\\n]|\\[^\n])*+"'
_OUTSIDE = re.compile(rf'{_COMMENT}|{_STRING}|"[^\n]*|(?P<call>\.\s*add\s*\()', re.DOTALL)
_INSIDE = re.compile(
    rf"(?:\s+|{_COMMENT})*+(?:(?P<string>{_STRING})|(?P<comma>,)|(?P<close>\))|(?P<other>[^\s,()\"]{{1,40}}|\S?))",
    re.DOTALL,
)


def read_okhttp(data: str | bytes, *, source: str = "") -> Imported:
    """
    Read the ``.add(…)`` calls of a ``CertificatePinner.Builder``.

    Args:
        data: Kotlin or Java: the calls alone, or code around them.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault and its line.
    """
    faults: list[Fault] = []
    losses: list[Loss] = []
    patterns: dict[HostPattern, tuple[Pin, ...]] = {}
    lines: dict[HostPattern, int] = {}
    for line, arguments in _calls(as_text(data, source=source), faults):
        if len(faults) >= MOST_FAULTS:
            break
        read = _read_call(line, arguments, faults)
        if read is not None:
            pattern, pins = read
            patterns[pattern] = tuple(dict.fromkeys((*patterns.get(pattern, ()), *pins)))
            lines.setdefault(pattern, line)
    if not patterns and not faults:
        faults.append(Fault("", 'there is no .add("pattern", "sha256/…")'))
    if faults:
        raise PolicyError(faults, source=source)
    complete = _complete(patterns, lines)
    check_pin_count(
        (len(patterns[each]) for pattern in complete for each in _broader(pattern, patterns)), source=source
    )
    pin_sets = [_pin_set(pattern, patterns, lines, losses) for pattern in complete]
    return Imported(Policy(tuple(pin_sets), Unlisted.ALLOW), tuple(losses))


def _calls(text: str, faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    """The line and the arguments of every ``.add(…)`` whose arguments are written out."""
    line, counted, at = 1, 0, 0
    while match := _OUTSIDE.search(text, at):
        at = match.end()
        if match["call"] is None:
            continue
        line, counted = line + text.count("\n", counted, match.start()), match.start()
        arguments, at, seen = _arguments(text, at)
        if seen is not None:
            what = f"{seen!r} where a text in double quotes was expected" if seen else "the bracket is never closed"
            faults.append(Fault(f"line {line}", f".add(: {what}", "write pattern and pins out, joined by commas"))
        else:
            yield line, arguments


def _arguments(text: str, at: int) -> tuple[list[str], int, str | None]:
    """The texts up to the closing bracket, where that ends, and what stands in the way; a last comma is allowed."""
    arguments: list[str] = []
    is_text_next = True
    while match := _INSIDE.match(text, at):
        at = match.end()
        if match["close"]:
            break
        if match["string"] and is_text_next:
            arguments.append(match["string"][1:-1])
        elif not match["comma"] or is_text_next:
            return arguments, at, match["other"] or match["string"] or match["comma"] or ""
        is_text_next = not is_text_next
    return arguments, at, None


def _read_call(line: int, texts: list[str], faults: list[Fault]) -> tuple[HostPattern, list[Pin]] | None:
    place, before = f"line {line}", len(faults)
    if len(texts) < 2:  # noqa: PLR2004 - a pattern and a pin
        faults.append(Fault(place, ".add( needs a pattern and a pin"))
        return None
    pins: list[Pin] = []
    pattern = None
    try:
        pattern = HostPattern.parse(texts[0])
    except HostError as error:
        faults.append(Fault(place, str(error)))
    for text in texts[1:]:
        try:
            pins.append(Pin.parse(text, kind=PinKind.SPKI))
        except PinError as error:
            faults.append(Fault(place, str(error)))
    return None if pattern is None or len(faults) > before else (pattern, pins)


def _complete(patterns: dict[HostPattern, tuple[Pin, ...]], lines: dict[HostPattern, int]) -> list[HostPattern]:
    """
    The patterns, and a host for each that ``*.`` and ``**.`` cover together: no pattern of its own stands for that.
    """
    complete = dict.fromkeys(patterns)
    for pattern in patterns:
        label = HostPattern(parent(pattern.base), Scope.LABEL)
        host = HostPattern(pattern.base, Scope.HOST)
        if pattern.scope is Scope.TREE and label in patterns and host not in complete:
            complete[host] = None
            lines[host] = lines[pattern]
    return list(complete)


def _broader(pattern: HostPattern, patterns: Container[HostPattern]) -> list[HostPattern]:
    """The patterns that cover all that *pattern* covers, itself among them. Costs by labels, not by patterns."""
    candidates = [pattern]
    if pattern.scope is Scope.HOST:
        candidates.append(HostPattern(parent(pattern.base), Scope.LABEL))
    base = pattern.base
    while base:
        candidates.append(HostPattern(base, Scope.TREE))
        base = parent(base)
    return [each for each in dict.fromkeys(candidates) if each in patterns]


def _pin_set(
    pattern: HostPattern,
    patterns: dict[HostPattern, tuple[Pin, ...]],
    lines: dict[HostPattern, int],
    losses: list[Loss],
) -> PinSet:
    place = f"line {lines[pattern]}"
    broader = _broader(pattern, patterns)
    pins = tuple(dict.fromkeys(pin for each in broader for pin in patterns[each]))
    if others := [str(each) for each in broader if each != pattern]:
        what = f"{pattern} has the pins of {', '.join(others)} as well, as all matching patterns count there"
        losses.append(Loss(place, what))
    is_single = len(pins) == 1
    if is_single:
        losses.append(Loss(place, f"{pattern} has one pin and no backup; allow_single_pin accepts that"))
    return PinSet(name=str(pattern), pins=pins, allow_single_pin=is_single)


def write_okhttp(policy: Policy) -> Exported:
    """
    Write *policy* as Kotlin that builds a ``CertificatePinner``.

    Raises:
        PolicyError: A rule has nothing that the format could say.
    """
    losses: list[Loss] = []
    faults: list[Fault] = []
    note_unlisted(policy, losses)
    written: dict[HostPattern, tuple[Pin, ...]] = {}
    for pin_set in policy.pin_sets:
        note_rotation(pin_set, losses)
        if pin_set.mode is Mode.OFF:
            what = "an exclusion does not exist there: the pins of the broader rule apply"
            losses.append(Loss(pin_set.name, what, Effect.TIGHTENS))
            continue
        mode_becomes_enforced(pin_set, losses)
        lose_expiry(pin_set, losses)
        pins = keep_any_pins(pin_set, losses, faults)
        written |= dict.fromkeys(pin_set.patterns, pins)
    if faults:
        raise PolicyError(faults, source="the conversion to okhttp")
    sets = {pattern: frozenset(pins) for pattern, pins in written.items()}
    losses += [loss for pattern in written if (loss := _gain(pattern, sets))]
    calls = [f"    .add({_quoted(pattern)}, {', '.join(map(_quoted, pins))})" for pattern, pins in written.items()]
    return Exported("\n".join(["CertificatePinner.Builder()", *calls, "    .build()", ""]), tuple(losses))


def _gain(pattern: HostPattern, written: dict[HostPattern, frozenset[Pin]]) -> Loss | None:
    broader = [each for each in _broader(pattern, written) if not written[each] <= written[pattern]]
    if not broader:
        return None
    what = f"{pattern} accepts the pins of {', '.join(map(str, broader))} as well: all matching patterns count there"
    return Loss(str(pattern), what, Effect.WEAKENS)


def _quoted(value: HostPattern | Pin) -> str:
    return f'"{value}"'  # neither holds a quote, a backslash or a dollar
