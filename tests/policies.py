"""
Any policy, for hypothesis.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from pinset import Mode, OnExpiry, Pin, PinKind, PinSet, Policy, Subdomains, Unlisted

PIN_LISTS = st.lists(st.binary(min_size=32, max_size=32), max_size=3, unique=True)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])


@st.composite
def pin_sets(draw, name: str) -> PinSet:
    keys = {role: [Pin(PinKind.SPKI, d) for d in draw(PIN_LISTS)] for role in ("pins", "leaf_pins", "ca_pins")}
    whole = [Pin(PinKind.CERTIFICATE, digest) for digest in draw(PIN_LISTS)]
    if not whole and not any(keys.values()):
        whole = [Pin(PinKind.CERTIFICATE, bytes(32))]
    expires = draw(
        st.none() | st.datetimes(timezones=ZONES, min_value=datetime(1970, 1, 2), max_value=datetime(9999, 1, 1))  # noqa: DTZ001
    )
    return PinSet(
        name=name,
        **keys,
        certificate_pins=whole,
        subdomains=draw(st.sampled_from(Subdomains)),
        mode=draw(st.sampled_from([Mode.ENFORCE, Mode.REPORT_ONLY])),
        expires=expires,
        on_expiry=None if expires is None else draw(st.sampled_from(OnExpiry)),
        rotation=draw(st.text(max_size=20)),
        allow_single_pin=True,
    )


@st.composite
def policies(draw) -> Policy:
    count = draw(st.integers(1, 3))
    return Policy(tuple(draw(pin_sets(f"host{n}.example")) for n in range(count)), draw(st.sampled_from(Unlisted)))
