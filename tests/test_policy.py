"""
`PinSet` and `Policy`: what is refused at construction, and which rule applies.
"""

from __future__ import annotations

import inspect
import itertools
import pickle
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinset import (
    Fault,
    HostError,
    InputError,
    Mode,
    OnExpiry,
    Pin,
    PinKind,
    PinSet,
    PinsetError,
    Policy,
    PolicyError,
    Subdomains,
    Unlisted,
)
from pinset._errors import CertificateError, PinError, RefusedError
from pinset._hosts import HostPattern, Scope
from pinset._policy import Role

A, B, C = (str(Pin(PinKind.SPKI, bytes([n]) * 32)) for n in (1, 2, 3))
WHOLE_A, WHOLE_B = (str(Pin(PinKind.CERTIFICATE, bytes([n]) * 32)) for n in (1, 2))
BACKUP = "add the pin of a backup key that is not in service, or say allow_single_pin = true"
ONE = "only one distinct pin: the next key change takes the app down"
UTC_2027 = datetime(2027, 1, 31, tzinfo=UTC)


def faults_of(make, *args, **kwargs) -> list[Fault]:
    with pytest.raises(PolicyError) as caught:
        make(*args, **kwargs)
    return list(caught.value.faults)


def faults_of_set(**fields) -> list[Fault]:
    return faults_of(PinSet, **({"name": "example.com", "pins": [A, B]} | fields))


def rule(name: str, **fields) -> PinSet:
    return PinSet(name=name, **({"pins": [A, B]} | fields))


def test_defaults():
    """Two pins enforce, for the host alone, without expiry."""
    pin_set = PinSet(name="example.com", pins=[A, B])
    assert pin_set.pins == (Pin.parse(A), Pin.parse(B))
    assert (pin_set.leaf_pins, pin_set.ca_pins, pin_set.certificate_pins) == ((), (), ())
    assert pin_set.subdomains is Subdomains.NONE
    assert pin_set.mode is Mode.ENFORCE
    assert (pin_set.expires, pin_set.on_expiry, pin_set.rotation, pin_set.allow_single_pin) == (None, None, "", False)
    assert pin_set.patterns == (HostPattern("example.com", Scope.HOST),)
    with pytest.raises(TypeError, match="positional"):
        PinSet("example.com", [A, B])


def test_all_lists():
    """Each list is a requirement of its own, in the order pins, leaf, CA, certificate."""
    pin_set = PinSet(
        name="example.com", certificate_pins=[WHOLE_B, WHOLE_A], ca_pins=[C, A], leaf_pins=[B, A], pins=[A, B]
    )
    assert [requirement.role for requirement in pin_set.requirements] == list(Role)
    assert pin_set.all_pins == tuple(Pin.parse(text) for text in (A, B, B, A, C, A, WHOLE_B, WHOLE_A))
    assert [role.kind for role in Role] == [PinKind.SPKI] * 3 + [PinKind.CERTIFICATE]


def test_empty_list_is_no_requirement():
    """Only lists that hold pins are required."""
    pin_set = PinSet(name="example.com", leaf_pins=[A, B])
    assert [requirement.role for requirement in pin_set.requirements] == [Role.LEAF]
    assert pin_set.requirements[0].pins == (Pin.parse(A), Pin.parse(B))


@pytest.mark.parametrize(
    ("name", "subdomains", "patterns"),
    [
        ("example.com", "none", ["example.com"]),
        ("example.com", "one", ["example.com", "*.example.com"]),
        ("example.com", Subdomains.ALL, ["**.example.com"]),
        ("*.example.com", "none", ["*.example.com"]),
        ("**.example.com", "none", ["**.example.com"]),
    ],
)
def test_subdomains(name, subdomains, patterns):
    """None is the host, one is the host and a label, all is the tree."""
    pin_set = rule(name, subdomains=subdomains)
    assert [str(pattern) for pattern in pin_set.patterns] == patterns
    assert pin_set.subdomains is Subdomains(subdomains)


@pytest.mark.parametrize("subdomains", ["one", "all"])
def test_subdomains_of_what_has_none(subdomains):
    """A pattern says itself what it covers, and an address has no subdomains."""
    says = Fault('"*.a.com".subdomains', "the name is a pattern and says by itself what it covers", "leave it out")
    assert faults_of_set(name="*.a.com", subdomains=subdomains) == [says]
    none = Fault('"1.2.3.4".subdomains', "an IP address has no subdomains", "leave it out")
    assert faults_of_set(name="1.2.3.4", subdomains=subdomains) == [none]


def test_name_that_is_no_host():
    """A name without canonical form is a fault of the name."""
    [fault] = faults_of_set(name="a..b")
    assert fault.path == '"a..b".name'
    assert fault.reason == "'a..b' is not a host name; it has an empty label"


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("subdomains", '"none", "one", "all"'),
        ("mode", '"enforce", "report-only", "off"'),
        ("on_expiry", '"unpin", "block", "enforce"'),
    ],
)
def test_unknown_choice(field, known):
    """A word that is no choice is refused with the words that are."""
    [fault] = faults_of_set(**{"expires": UTC_2027, "on_expiry": "block", field: "maybe"})
    assert fault == Fault(f'"example.com".{field}', f"'maybe' is not one of {known}")


def test_choices_may_be_text():
    """Texts become the choices they name."""
    pin_set = rule("example.com", mode="report-only", expires=UTC_2027, on_expiry="unpin")
    assert pin_set.mode is Mode.REPORT_ONLY
    assert pin_set.on_expiry is OnExpiry.UNPIN


@pytest.mark.parametrize("role", list(Role))
def test_one_pin_is_refused(role):
    """Each list needs two distinct pins."""
    pin = WHOLE_A if role is Role.CERTIFICATE else A
    assert faults_of_set(**({"pins": []} | {role.value: [pin]})) == [Fault(f'"example.com".{role.value}', ONE, BACKUP)]


def test_same_pin_twice_is_one_pin():
    """Two spellings of one pin, and the same text twice, count once."""
    assert faults_of_set(pins=[A, A.replace("sha256/", "sha256//"), Pin.parse(A)]) == [
        Fault('"example.com".pins', ONE, BACKUP)
    ]
    assert rule("example.com", pins=[A, B, A]).pins == (Pin.parse(A), Pin.parse(B))


@pytest.mark.parametrize("fields", [{"allow_single_pin": True}, {"mode": "report-only"}, {"mode": Mode.REPORT_ONLY}])
def test_one_pin_is_accepted(fields):
    """One pin is enough when it is asked for, or when nothing is refused for it."""
    assert len(PinSet(name="example.com", pins=[A], **fields).pins) == 1


@pytest.mark.parametrize("fields", [{}, {"mode": "report-only"}, {"allow_single_pin": True}])
def test_no_pins_are_refused(fields):
    """A rule that is not off needs pins."""
    [fault] = faults_of_set(pins=[], **fields)
    reason, suggestion = "no pins are given", 'to exclude a host from a broader rule, say mode = "off"'
    assert fault == Fault('"example.com".pins', reason, suggestion)


@pytest.mark.parametrize("mode", ["off", Mode.OFF])
def test_off_needs_no_pins(mode):
    """A rule that is off needs no pins, and may have some."""
    assert PinSet(name="example.com", mode=mode).requirements == ()
    assert PinSet(name="example.com", mode=mode, pins=[A]).mode is Mode.OFF


def test_broken_pins():
    """Every pin that cannot be read is a fault at its place, and none is reported as missing."""
    faults = faults_of_set(pins=["x", A, 5], leaf_pins=["sha1/x", None], allow_single_pin=True)
    assert [fault.path for fault in faults] == [
        '"example.com".pins[0]',
        '"example.com".pins[2]',
        '"example.com".leaf_pins[0]',
        '"example.com".leaf_pins[1]',
    ]
    assert faults[0].reason.startswith("'x' does not name its algorithm")
    assert faults[1].reason == "5 is not a text"
    assert faults[3].reason == "None is not a text"
    assert [fault.path for fault in faults_of_set(pins=["x"])] == ['"example.com".pins[0]']


def test_wrong_types_are_faults():
    """Every field of the wrong type is a fault of its own, and no foreign error comes out."""
    assert faults_of_set(name=5)[0] == Fault('"5".name', "5 is not a text", "put it in quotes")
    assert faults_of_set(pins=None) == [Fault('"example.com".pins', "None is not a list", "put it in brackets")]
    assert faults_of_set(rotation=5) == [Fault('"example.com".rotation', "5 is not a text", "put it in quotes")]
    assert faults_of_set(allow_single_pin=1) == [Fault('"example.com".allow_single_pin', "1 is not true or false")]
    for field in ("subdomains", "mode"):
        for value in (5, None):
            [fault] = faults_of_set(**{field: value})
            assert fault.path == f'"example.com".{field}'
            assert fault.reason.startswith(f"{value} is not one of ")
    assert faults_of_set(on_expiry="blok")[0].suggestion == "did you mean 'block'?"
    assert len(faults_of_set(on_expiry="blok")) == 1


@pytest.mark.parametrize("text", [A, A.encode()])
def test_one_text_is_not_a_list(text):
    """A text is not taken for a list of characters."""
    assert faults_of_set(pins=text) == [Fault('"example.com".pins', f"{text!r} is not a list", "put it in brackets")]


def test_pin_of_the_wrong_kind():
    """A list holds pins of its kind only."""
    assert faults_of_set(pins=[A, B, Pin.parse(WHOLE_A)]) == [
        Fault('"example.com".pins[2]', "is a certificate pin, and the list holds spki pins")
    ]
    assert faults_of_set(certificate_pins=[Pin.parse(A), WHOLE_A, WHOLE_B]) == [
        Fault('"example.com".certificate_pins[0]', "is a spki pin, and the list holds certificate pins")
    ]
    [fault] = faults_of_set(ca_pins=[WHOLE_A, A, B])
    assert "is the fingerprint of a certificate" in fault.reason


def test_certificate_pins_in_base64():
    """In the list of certificates, base64 stands for a certificate."""
    pin_set = PinSet(name="example.com", certificate_pins=[A, B])
    assert pin_set.certificate_pins == (Pin.parse(WHOLE_A), Pin.parse(WHOLE_B))


@pytest.mark.parametrize("expires", [datetime(2027, 1, 31), date(2027, 1, 31), "2027-01-31T00:00:00Z", 0])  # noqa: DTZ001
def test_expiry_that_is_no_instant(expires):
    """Only an aware datetime is an instant."""
    assert faults_of_set(expires=expires, on_expiry="block") == [
        Fault(
            '"example.com".expires',
            f"{expires!s} is not an instant: a date and a time with an offset",
            "write 2027-01-31T00:00:00Z",
        )
    ]


def test_expiry_and_what_then_go_together():
    """Neither stands without the other."""
    assert faults_of_set(expires=UTC_2027) == [
        Fault('"example.com".on_expiry', "expires needs it: what happens then?", '"unpin", "block" or "enforce"')
    ]
    assert faults_of_set(on_expiry="block") == [
        Fault('"example.com".on_expiry', "there is no expires for it to apply to")
    ]
    offset = UTC_2027.astimezone(timezone(timedelta(hours=2)))
    assert rule("example.com", expires=offset, on_expiry="block").expires == UTC_2027


def test_all_faults_at_once():
    """A pin set that is wrong in many ways says all of them, in the order of checking."""
    faults = faults_of_set(name="a..b", pins=["x"], ca_pins=[A], subdomains="few", expires=5)
    fields = ("name", "pins[0]", "subdomains", "ca_pins", "expires", "on_expiry")
    assert [fault.path for fault in faults] == [f'"a..b".{field}' for field in fields]


def test_errors_speak():
    """The message counts the faults and shows each with place and remedy."""
    with pytest.raises(PolicyError) as caught:
        PinSet(name="example.com", pins=[A], on_expiry="block")
    assert str(caught.value) == (
        "the policy was refused: 2 faults, nothing was applied\n"
        f'  "example.com".pins: {ONE} ({BACKUP})\n'
        '  "example.com".on_expiry: there is no expires for it to apply to'
    )
    one = PolicyError([Fault("", "is wrong")], source="a.toml")
    assert str(one) == "the policy was refused: 1 fault in a.toml, nothing was applied\n  is wrong"
    assert (one.faults, one.source) == ((Fault("", "is wrong"),), "a.toml")
    assert isinstance(one, InputError)
    assert isinstance(one, ValueError)


def test_errors_survive_pickling():
    """Errors cross process boundaries with their attributes."""
    for error in (
        PolicyError([Fault("p", "r", "s")], source="a.toml"),
        HostError("message", text="a..b"),
        PinError("message", text="x" * 100),
        CertificateError("message", offset=7),
        RefusedError("message", host="example.com"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
        assert isinstance(again, PinsetError)


def test_pin_sets_and_policies_are_values():
    """They compare by what they say, cannot be changed, and survive pickling."""
    full = rule(
        "example.com", subdomains="all", leaf_pins=[A, B], expires=UTC_2027, on_expiry="block", rotation="by hand"
    )
    policy = Policy((full, rule("a.org")), Unlisted.ALLOW)
    for value in (full, policy):
        again = pickle.loads(pickle.dumps(value))
        assert again == value
        assert hash(again) == hash(value)
    assert pickle.loads(pickle.dumps(policy)).find("www.example.com") == full
    assert Policy((rule("a.org"),)) != Policy((rule("a.org"),), Unlisted.ALLOW)
    with pytest.raises(AttributeError):
        full.mode = Mode.OFF
    with pytest.raises(AttributeError):
        policy.unlisted = Unlisted.ALLOW


def test_repr_is_what_was_said():
    """A rule in a log is its arguments, and what is derived from them is left out."""
    one = PinSet(name="a.org", pins=[Pin.parse(A)], mode="off")
    fields = ", ".join(f"{name}={getattr(one, name)!r}" for name in inspect.signature(PinSet).parameters)
    assert repr(one) == f"PinSet({fields})"
    assert repr(Policy((rule("**.org"), one))).endswith(f", {one!r}), unlisted={Unlisted.DENY!r})")


def test_policy_takes_any_sequence():
    """Pin sets are kept as a tuple; unlisted may be text."""
    policy = Policy([rule("a.org")], "allow")
    assert policy.pin_sets == (rule("a.org"),)
    assert policy.unlisted is Unlisted.ALLOW
    assert Policy([rule("a.org")]).unlisted is Unlisted.DENY


def test_empty_policy_with_an_unknown_word():
    """A policy without hosts, and a word that is no choice, are both said."""
    assert faults_of(Policy, (), "maybe") == [
        Fault("host", "no host is listed", "a policy without hosts pins nothing"),
        Fault("unlisted", '\'maybe\' is not one of "deny", "allow"'),
    ]


@pytest.mark.parametrize(
    ("first", "second", "pattern"),
    [
        (rule("example.com"), rule("example.com"), "example.com"),
        (rule("example.com"), rule("EXAMPLE.com."), "example.com"),
        (rule("*.example.com"), rule("example.com", subdomains="one"), "*.example.com"),
        (rule("**.example.com"), rule("example.com", subdomains="all"), "**.example.com"),
        (rule("σ.com"), rule("xn--4xa.com"), "xn--4xa.com"),
        (rule("::1"), rule("[0::1]"), "::1"),
    ],
)
def test_host_listed_twice(first, second, pattern):
    """Two rules for one pattern are refused, in any spelling, also when they say the same."""
    place = f'host[1]."{second.name}"'
    assert faults_of(Policy, (first, second)) == [Fault(place, f"{pattern} is already listed", "merge the two")]


def test_every_scope_of_one_base_may_be_listed():
    """A host, its label pattern and its tree are three rules."""
    policy = Policy(tuple(rule(name) for name in ("a.com", "*.a.com", "**.a.com")))
    assert [policy.find(host).name for host in ("a.com", "b.a.com", "c.b.a.com")] == ["a.com", "*.a.com", "**.a.com"]


@pytest.mark.parametrize(
    ("broader", "name", "subdomains"),
    [
        ("**.a.com", "a.com", "none"),
        ("**.a.com", "b.a.com", "none"),
        ("*.a.com", "b.a.com", "none"),
        ("**.a.com", "*.a.com", "none"),
        ("**.a.com", "*.b.a.com", "none"),
        ("**.a.com", "**.b.a.com", "none"),
        ("**.com", "b.a.com", "one"),
        ("**.com", "b.a.com", "all"),
    ],
)
@pytest.mark.parametrize("mode", ["enforce", "report-only"])
def test_exclusion_below_a_broader_rule(broader, name, subdomains, mode):
    """A host may be switched off where a broader rule covers all of it."""
    policy = Policy((rule(broader, mode=mode), PinSet(name=name, mode="off", subdomains=subdomains)))
    assert policy.find(name.replace("*", "x").replace("xx", "x")).mode is Mode.OFF


@pytest.mark.parametrize(
    ("others", "name", "subdomains"),
    [
        ([], "a.com", "none"),
        (["b.com"], "a.com", "none"),
        (["a.com"], "b.a.com", "none"),
        (["*.a.com"], "c.b.a.com", "none"),
        (["*.a.com"], "a.com", "none"),
        (["*.com"], "a.com", "one"),
        (["*.a.com"], "*.b.a.com", "none"),
        (["*.a.com"], "**.b.a.com", "none"),
        (["a.com", "*.a.com"], "**.a.com", "none"),
        (["**.b.a.com"], "**.a.com", "none"),
        (["a.com"], "*.a.com", "none"),
        (["**.ba.com"], "a.com", "none"),
    ],
)
def test_exclusion_of_what_is_not_covered(others, name, subdomains):
    """Switching off what no broader rule covers entirely is refused."""
    excluded = PinSet(name=name, mode="off", subdomains=subdomains)
    assert faults_of(Policy, (*map(rule, others), excluded)) == [
        Fault(
            f'host[{len(others)}]."{name}".mode',
            "excludes hosts that no broader rule covers",
            'leave the host out, and say unlisted = "allow" if it may be reached',
        )
    ]


def test_exclusion_below_an_exclusion():
    """A rule that is off covers nothing, even where a broader rule still does."""
    off = PinSet(name="**.b.a.com", mode="off")
    inner = PinSet(name="c.b.a.com", mode="off")
    assert [fault.path for fault in faults_of(Policy, (rule("**.a.com"), off, inner))] == ['host[2]."c.b.a.com".mode']
    again = rule("**.c.b.a.com")
    policy = Policy((rule("**.a.com"), off, again, PinSet(name="d.c.b.a.com", mode="off")))
    assert policy.find("c.b.a.com") is again


def test_nearest_rule_decides_whether_an_exclusion_is_covered():
    """At one base the tree is nearer to the host than the label pattern of the parent."""
    off = PinSet(name="**.b.a.com", mode="off")
    host = PinSet(name="b.a.com", mode="off")
    assert faults_of(Policy, (rule("**.a.com"), rule("*.a.com"), off, host))[0].path == 'host[3]."b.a.com".mode'
    label = PinSet(name="*.a.com", mode="off")
    assert faults_of(Policy, (rule("**.a.com"), label, host))[0].path == 'host[2]."b.a.com".mode'


def test_from_mapping():
    """The short form makes enforced pin sets in order."""
    policy = Policy.from_mapping({"a.com": [A, B], "*.b.com": (Pin.parse(B), C)}, unlisted=Unlisted.ALLOW)
    assert policy == Policy((rule("a.com"), rule("*.b.com", pins=[B, C])), Unlisted.ALLOW)
    assert Policy.from_mapping(pins={"a.com": [A, B]}).unlisted is Unlisted.DENY
    with pytest.raises(TypeError, match="positional"):
        Policy.from_mapping({"a.com": [A, B]}, Unlisted.ALLOW)


def test_from_mapping_collects_faults():
    """The faults of all hosts come out at once."""
    faults = faults_of(Policy.from_mapping, {"a.com": [A], "b.com": [A, B], "c..d": [A, B], "e.com": []})
    assert [fault.path for fault in faults] == ['"a.com".pins', '"c..d".name', '"e.com".pins']
    assert faults_of(Policy.from_mapping, {})[0].path == "host"


def test_find_takes_any_spelling():
    """A host is found in any spelling, and refused without a canonical form."""
    policy = Policy((rule("σ.example"), rule("2001:db8::1"), rule("**.1.example")))
    assert policy.find("Σ.Example.").name == "σ.example"
    assert policy.find("[2001:DB8::01]").name == "2001:db8::1"
    assert policy.find("1.2.3.4") is None
    assert policy.find("1.1.1.example").name == "**.1.example"
    with pytest.raises(HostError):
        policy.find("a..b")


LABELS = st.sampled_from(["a", "b", "com"])
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.tuples(st.sampled_from(["", "*.", "**."]), NAMES).map("".join)


def slow_find(names: list[str], host: str) -> str | None:
    """The most specific rule, said once more: sort all that match."""
    matching = []
    for name in names:
        stars, base = name.rpartition("*.")[1], name.lstrip("*").lstrip(".")
        depth = len(base.split("."))
        if name == host:
            matching.append((depth, 2, name))
        elif name.startswith("**.") and (host == base or host.endswith("." + base)):
            matching.append((depth, 1 if host == base else 0, name))
        elif stars and not name.startswith("**.") and host.split(".")[1:] == base.split("."):
            matching.append((depth, 0.5, name))
    return max(matching)[2] if matching else None


@given(st.lists(PATTERNS, min_size=1, max_size=12, unique=True), NAMES)
def test_find_agrees_with_a_slow_search(names, host):
    """The look-up by labels finds what a search through all rules finds."""
    found = Policy(tuple(rule(name) for name in names)).find(host)
    assert (found and found.name) == slow_find(names, host)
    covering = [name for name in names if HostPattern.parse(name).matches(host)]
    assert (found is not None) == bool(covering)
    assert found is None or found.name in covering


def test_order_of_rules_is_of_no_matter():
    """Whatever the order of the document, the same rule applies."""
    names = ("a.b.com", "*.b.com", "**.b.com", "**.com")
    for order in itertools.permutations(names):
        policy = Policy(tuple(rule(name) for name in order))
        assert [policy.find(h).name for h in ("a.b.com", "c.b.com", "b.com", "d.c.b.com", "x.com")] == [
            "a.b.com", "*.b.com", "**.b.com", "**.b.com", "**.com",
        ]  # fmt: skip
