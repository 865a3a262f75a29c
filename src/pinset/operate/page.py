"""
A plan as one HTML page: a timeline a rule and a table of all days. Nothing is loaded, nothing is run.

The page forbids itself everything but its own style by a Content-Security-Policy, so that a subject of a certificate, which
is a stranger's text, could do nothing even if it were not escaped, which it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from html import escape

from pinset.operate.plan import Event, EventKind, Plan, in_words

_LEAST_SPAN = timedelta(days=90)
_NAMES = {EventKind.SHIP: "ship", EventKind.PIN_SET: "set", EventKind.CERTIFICATE: "cert"}
_LEGEND = {
    EventKind.SHIP: "the next pins must have shipped",
    EventKind.PIN_SET: "the pin set ends",
    EventKind.CERTIFICATE: "a certificate ends",
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --page: #ffffff; --band: #f3f5f7;
  --ship: #b42318; --set: #9a6700; --cert: #0a6ebd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --line: #3d444d; --page: #0d1117;
  --band: #161b22; --ship: #ff7b72; --set: #e3b341; --cert: #6cb6ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, li { color: var(--soft); } ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
.row { margin: .75rem 0 1rem; } .name { font-weight: 600; }
.track { position: relative; height: 1.75rem; margin: 0 .5rem; background:
  linear-gradient(var(--line), var(--line)) center / 100% 2px no-repeat; }
.mark { position: absolute; top: 50%; width: .9rem; height: .9rem; transform: translate(-50%, -50%);
  border: 2px solid var(--page); }
.ship { background: var(--ship); border-radius: 50%; } .set { background: var(--set); }
.cert { background: var(--cert); transform: translate(-50%, -50%) rotate(45deg); }
.key { display: inline-block; position: static; transform: none; vertical-align: -.1rem; margin-right: .4rem; }
.key.cert { transform: rotate(45deg) scale(.8); }
.scale { display: flex; justify-content: space-between; color: var(--soft); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .5rem; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; } tr.past td { background: var(--band); } .when { white-space: nowrap; }
.late { color: var(--ship); font-weight: 600; }
@media (max-width: 36rem) { thead { display: none; } tr { display: block; padding: .5rem 0;
  border-bottom: 1px solid var(--line); } td { display: block; border: 0; padding: .1rem .25rem; } }
"""


def write_page(plan: Plan, *, title: str) -> str:
    """
    The plan as a page that needs no other file.

    Args:
        plan: The plan.
        title: What it is the plan of, such as the name of the policy file.
    """
    return "\n".join([*_head(title), *_body(plan, title), "</body>", "</html>", ""])


def _head(title: str) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Rotation plan of {escape(title)}</title>"
    yield f"<style>{_STYLE}</style>"
    yield "</head>"
    yield "<body>"


def _body(plan: Plan, title: str) -> Iterator[str]:
    yield f"<h1>Rotation plan of {escape(title)}</h1>"
    yield f"<p>As of {plan.now.date()}. Pins ship {plan.lead.days} days before they are needed.</p>"
    if not plan.events:
        yield "<p>No rule has a date. Give the certificates, or record a check.</p>"
    else:
        yield "<ul>"
        for kind, words in _LEGEND.items():
            yield f'<li><span class="mark key {_NAMES[kind]}"></span>{words}</li>'
        yield "</ul>"
        yield from _timelines(plan)
        yield from _table(plan)
    if plan.undated:
        yield "<h2>Without a date</h2>"
        yield f"<p>{escape(', '.join(plan.undated))}</p>"


def _timelines(plan: Plan) -> Iterator[str]:
    begin = plan.now
    end = max(plan.events[-1].at, begin + _LEAST_SPAN)
    rules = dict.fromkeys(event.rule for event in plan.events)
    yield "<h2>Timeline</h2>"
    for rule in rules:
        yield '<div class="row">'
        yield f'<div class="name">{escape(rule)}</div>'
        yield '<div class="track">'
        for event in plan.events:
            if event.rule == rule:
                yield _mark(event, begin, end, plan)
        yield "</div>"
        if note := plan.rotations.get(rule):
            yield f"<p>{escape(note)}</p>"
        yield "</div>"
    middle = begin + (end - begin) / 2
    days = "".join(f"<span>{instant.date()}</span>" for instant in (begin, middle, end))
    yield f'<div class="scale">{days}</div>'


def _mark(event: Event, begin: datetime, end: datetime, plan: Plan) -> str:
    share = min(max((event.at - begin) / (end - begin), 0), 1)
    words = escape(f"{event.at.date()}, {in_words(event, plan.now)}: {event.what}")
    return f'<span class="mark {_NAMES[event.kind]}" style="left: {share:.2%}" title="{words}"></span>'


def _table(plan: Plan) -> Iterator[str]:
    yield "<h2>Calendar</h2>"
    yield "<table><thead><tr><th>day</th><th></th><th>host</th><th>what</th></tr></thead><tbody>"
    for event in plan.events:
        is_past = event.at <= plan.now
        late = " late" if is_past else ""
        yield f'<tr{" class=past" if is_past else ""}><td class="when">{event.at.date()}</td>'
        yield f'<td class="when{late}">{in_words(event, plan.now)}</td><td>{escape(event.rule)}</td>'
        yield f'<td><span class="mark key {_NAMES[event.kind]}"></span>{escape(event.what)}</td></tr>'
    yield "</tbody></table>"
