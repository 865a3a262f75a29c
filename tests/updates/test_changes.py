"""
What a publisher is shown before signing, and what is objected to.
"""

from __future__ import annotations

from publishing import pin, policy

from pinset import PinSet, Policy, Unlisted
from pinset.updates._changes import changes, objections


def reasons(before, after):
    """The objections as text."""
    return [str(fault) for fault in objections(before, after)]


def test_first_policy():
    """Every rule is new."""
    assert changes(None, policy(1, 2)) == ["+ api.example.com (enforce)", f"+   {pin(1)}", f"+   {pin(2)}"]
    assert reasons(None, policy(1, 2)) == []


def test_nothing_changes():
    """Then nothing is shown."""
    assert changes(policy(1, 2), policy(1, 2)) == []


def test_differences():
    """Rules that come and go, and what changes inside a rule."""
    before = Policy((PinSet(name="a.test", pins=[pin(1), pin(2)]), PinSet(name="b.test", pins=[pin(3), pin(4)])))
    after = Policy(
        (PinSet(name="a.test", pins=[pin(2), pin(5)], rotation="soon"), PinSet(name="c.test", pins=[pin(6), pin(7)])),
        Unlisted.ALLOW,
    )
    assert changes(before, after) == [
        "- unlisted = deny",
        "+ unlisted = allow",
        "  a.test",
        f"-   pins: {pin(1)}",
        f"+   pins: {pin(5)}",
        "-   rotation = ",
        "+   rotation = soon",
        "- b.test (enforce)",
        f"-   {pin(3)}",
        f"-   {pin(4)}",
        "+ c.test (enforce)",
        f"+   {pin(6)}",
        f"+   {pin(7)}",
    ]


def test_objections():
    """A lonely pin, pins without overlap, and what programs will refuse."""
    lonely = Policy((PinSet(name="api.example.com", pins=[pin(1)], allow_single_pin=True),))
    assert "has one pin" in reasons(None, lonely)[0]
    [apart] = reasons(policy(1, 2), policy(3, 4))
    assert "has no pin in common" in apart
    assert reasons(policy(1, 2), policy(2, 3)) == []
    softer = Policy((PinSet(name="api.example.com", pins=[pin(1)], mode="report-only"),))
    [weaker] = reasons(policy(1, 2), softer)
    assert "would have mode" in weaker
    assert "will refuse this one" in weaker
