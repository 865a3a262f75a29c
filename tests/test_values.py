"""
What the rules and the TLS layer give out are values: nothing changes them, and nothing is hung onto them.
"""

from __future__ import annotations

import dataclasses

import pytest

from pinset import _certificates, _errors, _evaluate, _hosts, _pins, _policy, _sessions, _tls, _verdict

MODULES = (_errors, _hosts, _certificates, _pins, _policy, _verdict, _evaluate, _sessions, _tls)
VALUES = [
    thing
    for module in MODULES
    for thing in vars(module).values()
    if isinstance(thing, type) and dataclasses.is_dataclass(thing) and thing.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_values_do_not_change(kind):
    """No field of a value can be set or deleted, and there is no room for another."""
    value = object.__new__(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(value, field.name)
    assert not hasattr(value, "__dict__")
