"""
The page of ``pinset plan --html`` in a browser: on a phone and on a desk, light and dark.
"""

from __future__ import annotations

import html
import re
import struct
import subprocess
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from pinset import Pin, PinKind, PinSet, Policy
from pinset.operate.page import write_page
from pinset.operate.plan import make_plan
from pinset.operate.record import Seen

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def page():
    pins = [Pin(PinKind.SPKI, bytes([n]) * 32) for n in range(1, 9)]
    names = [
        "api.example.com",
        "**.media.example.com",
        "a-very-long-name-of-a-host-that-must-wrap." * 3 + "example.org",
    ]
    policy = Policy(
        tuple(
            PinSet(
                name=name,
                pins=pins[2 * n : 2 * n + 2],
                expires=NOW + timedelta(50 + 150 * n),
                on_expiry="block",
                rotation="Renewed by ops in January; the new pin ships with release 5.2",
            )
            for n, name in enumerate(names)
        )
    )
    chain = Seen(pins[0], Pin(PinKind.CERTIFICATE, bytes(32)), "CN=" + "x" * 190, NOW + timedelta(200))
    return write_page(make_plan(policy, [[chain]], NOW, lead=timedelta(60)), title="pins.toml")


def browse(program, tmp_path, *arguments):
    """Run headless Chromium in a profile of its own."""
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--hide-scrollbars", "--disable-background-networking", "--no-first-run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)


def first_pixel(path) -> tuple[int, int, tuple[int, int, int]]:
    """Width, height and the top left pixel of a PNG (its first byte of a row is a filter, which changes nothing there)."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert (depth, colour in (2, 6)) == (8, True)
    chunks, at = b"", 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        chunks += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return width, height, tuple(zlib.decompress(chunks)[1:4])


@pytest.mark.parametrize(("dark", "pixel"), [(False, (255, 255, 255)), (True, (13, 17, 23))])
def test_screenshot(require_program, page, tmp_path, dark, pixel):
    """The page has the colours that the reader's system asks for."""
    program = require_program("chromium")
    (tmp_path / "plan.html").write_text(page)
    preference = "--blink-settings=preferredColorScheme=0" if dark else "--blink-settings=preferredColorScheme=1"
    browse(program, tmp_path, preference, "--window-size=900,1200", "--screenshot=plan.png", "plan.html")
    assert first_pixel(tmp_path / "plan.png") == (900, 1200, pixel)


@pytest.mark.parametrize("width", [360, 1280])
def test_fits_the_screen(require_program, page, tmp_path, width):
    """Nothing is wider than the screen, of a phone or of a desk, and every rule and day is there."""
    program = require_program("chromium")
    frame = f'<iframe style="width:{width}px;height:800px;border:0" srcdoc="{html.escape(page)}"></iframe>'
    script = (
        "onload = () => { const d = document.querySelector('iframe').contentDocument;"
        "document.title = [d.documentElement.scrollWidth, d.documentElement.clientWidth,"
        "d.querySelectorAll('.track').length, d.querySelectorAll('tbody tr').length].join(' ') }"
    )
    (tmp_path / "frame.html").write_text(f"<title></title>{frame}<script>{script}</script>")
    done = browse(program, tmp_path, "--window-size=1400,900", "--virtual-time-budget=3000", "--dump-dom", "frame.html")
    title = re.search("<title>(.*?)</title>", done.stdout)[1]
    scroll, client, tracks, rows = map(int, title.split())
    assert (scroll, client) == (width, width)
    assert (tracks, rows) == (3, 7)
