"""
`Pinner`: one policy in force, observers that cannot answer, and policy files.
"""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pinset import (
    Decision,
    Fault,
    InputError,
    Outcome,
    Pin,
    Pinner,
    PinSet,
    Policy,
    PolicyError,
    load_policy,
)
from pinset._pinner import Stamp, as_pinner, as_policy
from pinset.reports import CallbackReports, LogReports, Reporter
from pinset.testing import Authority

CHAIN = Authority("Pinner").issue("example.com").chain
KEY = str(Pin.from_certificate(CHAIN[0]))
OTHER = "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="
NOW = datetime(2026, 6, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
GOOD = {"example.com": [KEY, OTHER]}
BAD = {"example.com": [OTHER, "sha256/" + "A" * 43 + "="]}


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now=NOW):
        self.now, self.asked = now, 0

    def __call__(self):
        self.asked += 1
        return self.now


def expiring(on_expiry="block", **fields) -> Policy:
    return Policy((PinSet(name="example.com", pins=[KEY, OTHER], expires=NOW, on_expiry=on_expiry, **fields),))


def test_check():
    """A check gives a stamp with the generation, the verdict and the chain."""
    stamp = Pinner(GOOD, clock=Clock()).check("EXAMPLE.com", list(CHAIN))
    assert stamp.generation == 1
    assert stamp.chain == CHAIN
    verdict = stamp.verdict
    assert (verdict.host, verdict.outcome, verdict.decision) == ("example.com", Outcome.MATCHED, Decision.ALLOW)
    assert verdict.at == NOW


def test_default_clock():
    """Without a clock of its own, a pinner asks the time of day, in UTC."""
    before = datetime.now(UTC)
    at = Pinner(GOOD).check("example.com", CHAIN).verdict.at
    assert before <= at <= datetime.now(UTC)
    assert at.tzinfo is UTC


def test_replace():
    """Policy and generation change together."""
    pinner = Pinner(GOOD)
    first = pinner.policy
    assert (pinner.generation, repr(pinner)) == (1, "<Pinner generation=1 hosts=1>")
    pinner.replace({**GOOD, "a.org": [KEY, OTHER]})
    assert (pinner.generation, repr(pinner)) == (2, "<Pinner generation=2 hosts=2>")
    assert pinner.policy != first
    pinner.replace(first)
    assert (pinner.generation, pinner.policy) == (3, first)


def test_replace_by_no_policy_changes_nothing():
    """A policy that is refused leaves the present one in force."""
    pinner = Pinner(GOOD)
    policy = pinner.policy
    for pins in ({}, {"example.com": []}, {"a..b": [KEY, OTHER]}, None):
        with pytest.raises(PolicyError):
            pinner.replace(pins)
    assert (pinner.policy, pinner.generation) == (policy, 1)


def test_check_sees_one_policy():
    """A policy that is replaced during a check does not mix with the one that the check began with."""

    made = []

    def clock():
        for pinner in made:
            if pinner.generation == 1:
                pinner.replace(BAD)
        return NOW

    pinner = Pinner(GOOD, clock=clock)
    made.append(pinner)
    stamp = pinner.check("example.com", CHAIN)
    assert (stamp.generation, stamp.verdict.outcome) == (1, Outcome.MATCHED)
    assert pinner.renew(stamp).verdict.outcome is Outcome.MISMATCHED


def test_observers_are_told_every_check_and_refusal():
    """Every observer hears every handshake, in order, after the decision."""
    heard = []
    pinner = Pinner(GOOD, observers=iter([heard.append, heard.append]), clock=Clock())
    stamp = pinner.check("example.com", CHAIN)
    assert heard == [stamp.verdict] * 2
    verdict = pinner.refuse("Example.com", outcome=Outcome.UNVERIFIED, detail="why")
    assert heard[2:] == [verdict] * 2
    assert (verdict.host, verdict.outcome, verdict.detail) == ("example.com", Outcome.UNVERIFIED, "why")
    assert (verdict.decision, verdict.at) == (Decision.REFUSE, NOW)


def test_renewal_is_not_told():
    """Observers hear of handshakes; judging a connection again is none."""
    heard = []
    pinner = Pinner(GOOD, observers=[heard.append])
    stamp = pinner.check("example.com", CHAIN)
    pinner.replace(BAD)
    pinner.renew(stamp)
    assert len(heard) == 1


def test_error_of_an_observer_changes_nothing(caplog):
    """An observer that fails is logged; the others are told, and the decision stands."""
    heard = []

    def broken(_verdict):
        raise RuntimeError("observer")

    stamp = Pinner(GOOD, observers=[broken, heard.append]).check("example.com", CHAIN)
    assert stamp.verdict.decision is Decision.ALLOW
    assert heard == [stamp.verdict]
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pinset", "ERROR")
    assert record.getMessage() == "a pinset observer failed; the decision stands"
    assert record.exc_info[0] is RuntimeError


def test_what_is_not_enforced_is_logged(caplog):
    """A mismatch that is let through is a warning with its explanation; a match that is enforced is silent."""
    report = Pinner(Policy((PinSet(name="example.com", pins=[OTHER], mode="report-only"),)))
    good = Pinner(GOOD)
    with caplog.at_level(logging.DEBUG, "pinset"):
        good.check("example.com", CHAIN)
        assert good.reporter.flush(10)
        assert not caplog.records
        stamp = report.check("example.com", CHAIN)
        assert report.reporter.flush(10)
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pinset.reports", "WARNING")
    assert record.getMessage() == f"not enforced: {stamp.verdict.explain()}"


def test_lost_enforcement_of_a_connection_is_told():
    """A connection that was enforced and goes on without being is told of, once."""
    heard = []
    pinner = Pinner(GOOD, observers=[heard.append])
    stamp = pinner.check("example.com", CHAIN, port=8443)
    assert stamp.port == 8443
    pinner.replace(Policy((PinSet(name="example.com", pins=[OTHER], mode="report-only"),)))
    lost = pinner.renew(stamp)
    assert heard == [stamp.verdict, lost.verdict]
    assert (lost.port, lost.verdict.decision) == (8443, Decision.REPORT)
    assert pinner.reporter.checks["example.com", Outcome.MISMATCHED, Decision.REPORT] == 1
    pinner.replace(pinner.policy)
    assert pinner.renew(lost) is not lost
    assert len(heard) == 2


def test_expiry_under_way_is_told():
    """A pin set that expires while a connection is open stops being enforced, and that is told."""
    heard, clock = [], Clock(NOW - TICK)
    pinner = Pinner(expiring("unpin"), observers=[heard.append], clock=clock)
    stamp = pinner.check("example.com", CHAIN)
    clock.now = NOW
    assert pinner.renew(stamp).verdict.decision is Decision.ALLOW
    assert [(verdict.expired, verdict.enforced) for verdict in heard] == [(False, True), (True, False)]


def test_reports_carry_port_and_served_chain():
    """What the TLS layer knows reaches the report; what was served is asked for only when there is one."""
    asked, reports = [], []

    def served():
        asked.append(1)
        return list(CHAIN)

    pinner = Pinner(GOOD, observers=[CallbackReports(reports.append)])
    pinner.check("example.com", CHAIN, port=1, served=served)
    assert asked == []
    pinner.replace(BAD)
    pinner.check("example.com", CHAIN, port=2, served=served)
    pinner.check("example.com", CHAIN, port=2, served=served)
    pinner.refuse("example.com", outcome=Outcome.UNVERIFIED, detail="self-signed", port=3, served=served)
    assert pinner.reporter.flush(10)
    assert [(report.port, report.served_chain, report.verdict.outcome) for report in reports] == [
        (2, CHAIN, Outcome.MISMATCHED),
        (3, CHAIN, Outcome.UNVERIFIED),
    ]
    assert len(asked) == 2


def test_served_chain_that_cannot_be_read(caplog):
    """The report goes out without it, and the decision stands."""
    reports = []
    pinner = Pinner(BAD, observers=[CallbackReports(reports.append)])
    assert pinner.check("example.com", CHAIN, served=lambda: 1 / 0).verdict.decision is Decision.REFUSE
    assert pinner.reporter.flush(10)
    assert [report.served_chain for report in reports] == [()]
    assert "the chain that example.com served cannot be read" in caplog.text


def test_reports_that_fail_change_nothing(caplog):
    """A sink that fails while it watches is logged; the decision stands, and the observers are told."""

    class Broken(CallbackReports):
        def watch(self, verdict, seconds):
            raise RuntimeError("watching")

    heard = []
    pinner = Pinner(GOOD, observers=[Broken(print), heard.append])
    assert pinner.check("example.com", CHAIN).verdict.decision is Decision.ALLOW
    assert len(heard) == 1
    assert caplog.records[0].getMessage() == "a pinset report failed; the decision stands"


def test_the_log_is_on_by_default():
    """Reports go to the log also when nobody asked; the sinks that are given come before it, and one's own replaces it."""
    mine = LogReports(logging.getLogger("mine"))
    assert [sink.name for sink in Pinner(GOOD).reporter.sinks] == ["log"]
    assert [sink.name for sink in Pinner(GOOD, observers=[print]).reporter.sinks] == ["log"]
    assert [sink.name for sink in Pinner(GOOD, observers=[CallbackReports(print)]).reporter.sinks] == [
        "callback",
        "log",
    ]
    assert Pinner(GOOD, observers=[mine]).reporter.sinks == (mine,)


def test_a_reporter_of_ones_own():
    """It is used as it is, may be shared, and nothing is added to it."""
    reporter = Reporter(CallbackReports(print))
    pinners = [Pinner(GOOD, observers=[reporter, print]) for _ in range(2)]
    assert [pinner.reporter for pinner in pinners] == [reporter] * 2
    assert [sink.name for sink in reporter.sinks] == ["callback"]
    assert Pinner(GOOD, observers=[Reporter()]).reporter.sinks == ()


@pytest.mark.parametrize("others", [[CallbackReports(print)], [Reporter()]])
def test_one_reporter(others):
    """A second one, or sinks beside it, are refused."""
    with pytest.raises(InputError, match="a Pinner has one Reporter; give it all the sinks"):
        Pinner(GOOD, observers=[Reporter(), *others])


def test_failing_check_is_a_refusal(caplog):
    """Whatever goes wrong in a check is logged and refused, even for a rule that only reports."""
    policy, clock = expiring(mode="report-only"), Clock()
    naive = Pinner(policy, clock=clock)
    clock.now = datetime(2026, 1, 1)  # noqa: DTZ001
    stamp = naive.check("example.com", CHAIN)
    assert (stamp.verdict.outcome, stamp.verdict.decision) == (Outcome.FAILED, Decision.REFUSE)
    assert stamp.verdict.detail == "TypeError: can't compare offset-naive and offset-aware datetimes"
    assert (stamp.generation, stamp.chain, stamp.verdict.rule) == (1, CHAIN, policy.pin_sets[0])
    assert naive.reporter.flush(10)
    record, report = caplog.records
    assert report.getMessage().startswith("refused: example.com could not be checked: TypeError")
    assert record.getMessage() == "the pin check of example.com failed; the connection is refused"
    assert (record.levelname, record.exc_info[0]) == ("ERROR", TypeError)


def test_clock_that_fails_is_a_refusal():
    """A broken clock lets nobody in, and its error does not come out of a handshake."""
    broken = iter([NOW])
    stamp = Pinner(GOOD, clock=lambda: next(broken)).check("example.com", CHAIN)
    assert (stamp.verdict.outcome, stamp.verdict.decision) == (Outcome.FAILED, Decision.REFUSE)
    assert stamp.verdict.detail.startswith("StopIteration")


def test_clock_without_an_offset():
    """It is refused at once: comparing it with a certificate or an expiry would fail in a handshake."""
    with pytest.raises(InputError, match=r"2026-01-01 00:00:00, which has no offset; use datetime\.now\(UTC\)"):
        Pinner(GOOD, clock=lambda: datetime(2026, 1, 1))  # noqa: DTZ001


def test_host_without_canonical_form_is_refused():
    """No rule can cover it, and the verdict names it as it was given."""
    verdict = Pinner(GOOD).check("a..b", CHAIN).verdict
    assert (verdict.host, verdict.outcome, verdict.decision) == ("a..b", Outcome.FAILED, Decision.REFUSE)
    assert verdict.rule is None


def test_threads_that_replace_do_not_share_a_number():
    """Two policies with one number would be taken for one by connections that were judged under the other."""
    pinner = Pinner(GOOD)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [pinner.replace(GOOD) for _ in range(300)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert pinner.generation == 1 + 4 * 300


def test_renew_keeps_a_stamp_that_holds():
    """Under the same policy and without expiry, the stamp is the same and the clock is not asked."""
    clock = Clock()
    pinner = Pinner(GOOD, clock=clock)
    stamp = pinner.check("example.com", CHAIN)
    asked = clock.asked
    assert pinner.renew(stamp) is stamp
    assert clock.asked == asked


def test_renew_after_replacement():
    """Under another policy the chain is judged again, even if the policy says the same."""
    pinner = Pinner(GOOD)
    stamp = pinner.check("example.com", CHAIN)
    pinner.replace(GOOD)
    again = pinner.renew(stamp)
    assert again is not stamp
    assert (again.generation, again.chain, again.verdict.outcome) == (2, CHAIN, Outcome.MATCHED)
    pinner.replace(BAD)
    assert pinner.renew(again).verdict.decision is Decision.REFUSE
    pinner.replace({"a.org": [KEY, OTHER]})
    assert pinner.renew(again).verdict.outcome is Outcome.UNLISTED


def test_renew_at_the_expiry():
    """A microsecond before the expiry the stamp holds; at the expiry the chain is judged again."""
    clock = Clock(NOW - TICK - TICK)
    pinner = Pinner(expiring(), clock=clock)
    stamp = pinner.check("example.com", CHAIN)
    assert stamp.verdict.decision is Decision.ALLOW
    clock.now = NOW - TICK
    assert pinner.renew(stamp) is stamp
    clock.now = NOW
    again = pinner.renew(stamp)
    assert (again.verdict.decision, again.verdict.expired) == (Decision.REFUSE, True)
    assert pinner.renew(again) is again


def test_renewal_of_a_connection_without_chain():
    """A connection that was let in unlisted has its chain judged once its host is listed."""
    open_policy = Policy((PinSet(name="a.org", pins=[KEY, OTHER]),), "allow")
    pinner = Pinner(open_policy)
    stamp = pinner.check("example.com", CHAIN)
    assert (stamp.verdict.decision, stamp.verdict.chain) == (Decision.ALLOW, ())
    pinner.replace(GOOD)
    assert pinner.renew(stamp).verdict.outcome is Outcome.MATCHED
    empty = Stamp(1, stamp.verdict, ())
    assert pinner.renew(empty).verdict.outcome is Outcome.UNVERIFIED


def test_threads_see_whole_policies():
    """While one thread replaces the policy, every check belongs to the generation on its stamp."""
    pinner = Pinner(GOOD)
    wrong = []

    def check():
        for _ in range(300):
            stamp = pinner.check("example.com", CHAIN)
            expected = Outcome.MATCHED if stamp.generation % 2 else Outcome.MISMATCHED
            if stamp.verdict.outcome is not expected:
                wrong.append(stamp)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        pinner.replace(GOOD if number % 2 else BAD)
    for thread in threads:
        thread.join()
    assert wrong == []


def test_as_pinner_and_as_policy():
    """A pinner and a policy are themselves; a mapping becomes either."""
    pinner = Pinner(GOOD)
    assert as_pinner(pinner) is pinner
    assert as_pinner(pinner.policy).policy is pinner.policy
    assert as_policy(pinner.policy) is pinner.policy
    assert as_policy(GOOD) == pinner.policy == as_pinner(GOOD).policy


@pytest.mark.parametrize("pins", [None, [KEY], KEY, 5], ids=["nothing", "list", "text", "number"])
def test_what_is_neither_policy_nor_mapping(pins):
    """Anything else is refused by its type."""
    with pytest.raises(PolicyError) as caught:
        as_pinner(pins)
    reason = f"pins are a Policy or a mapping of hosts to pins, not {type(pins).__name__}"
    assert caught.value.faults == (Fault("", reason, "see load_policy"),)


TOML = f'[[host]]\nname = "example.com"\npins = ["{KEY}", "{OTHER}"]\nrotation = "für Müller"\n'
JSON = f'{{"host": [{{"name": "example.com", "pins": ["{KEY}", "{OTHER}"], "rotation": "für Müller"}}]}}'


@pytest.mark.parametrize(("name", "text"), [("p.toml", TOML), ("p.TOML", TOML), ("p.json", JSON), ("p.JSON", JSON)])
def test_load_policy(tmp_path: Path, name, text):
    """A file is read as UTF-8, in the format of its suffix, given as path or text."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    policy = load_policy(file)
    assert policy == load_policy(str(file))
    assert policy.find("example.com").pins == (Pin.parse(KEY), Pin.parse(OTHER))
    assert policy.find("example.com").rotation == "für Müller"


@pytest.mark.parametrize(("name", "suffix"), [("p.yaml", ".yaml"), ("p", "")])
def test_load_policy_of_another_suffix(tmp_path: Path, name, suffix):
    """The suffix says the format, and there are two."""
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / name)
    reason = f"the name of a policy file ends in .toml or .json, not {suffix!r}"
    assert caught.value.faults == (Fault("", reason),)
    assert caught.value.source == str(tmp_path / name)


def test_load_policy_that_cannot_be_read(tmp_path: Path):
    """A missing file and bytes that are not UTF-8 are refused with the cause."""
    (tmp_path / "latin.toml").write_bytes(b"# \xfc")
    for name, cause in (("missing.toml", FileNotFoundError), ("latin.toml", UnicodeDecodeError)):
        with pytest.raises(PolicyError, match="the file cannot be read: ") as caught:
            load_policy(tmp_path / name)
        assert isinstance(caught.value.__cause__, cause)
        assert caught.value.source == str(tmp_path / name)


@pytest.mark.parametrize(("name", "text"), [("p.toml", "x = 1"), ("p.json", '{"x": 1}')])
def test_faults_name_the_file(tmp_path: Path, name, text):
    """What is wrong in a file is said with its name."""
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy(file)
    assert caught.value.source == str(file)
    assert str(caught.value).startswith(f"the policy was refused: 1 fault in {file}, nothing was applied\n  x: ")
