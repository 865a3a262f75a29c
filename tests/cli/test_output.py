"""
How the command line speaks: to a terminal with colours and bars, to a pipe without, and letter by letter to both.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import timedelta

import pytest
import typer
from cli.transcripts import HERE, pinset

from pinset._files import replace_file, write_new
from pinset.cli._moment import span
from pinset.cli._output import put_table, say

CONTROLLING = "import os; os.close(os.open(os.ttyname(0), os.O_RDWR))"  # what is opened first controls the session
MAIN = "from pinset.cli import main; main()"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_is_cut_or_turned_into_pictures(capsys, monkeypatch, is_terminal):
    """Fingerprints with ``:AB:`` and ``:CL:``, brackets and long lines come out as they are."""
    monkeypatch.setattr("pinset.cli._output._is_terminal", lambda _: is_terminal)
    fingerprint = ":".join(["AB", "CL", "ID", "OK", "UP"] * 200)
    put_table(["pin"], [[fingerprint], ["[red]x[/red] :AB:"]], styles=["red"])
    say(f"[bold]{fingerprint}[/bold]", style="red")
    said = capsys.readouterr()
    assert said.out == f"PIN\n{fingerprint}\n[red]x[/red] :AB:\n"
    assert said.err == f"[bold]{fingerprint}[/bold]\n"


def on_a_terminal(*arguments, **environment) -> str:
    """What a command writes to a terminal."""
    leader, follower = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**inherited, "TERM": "xterm-256color", **environment},
    )
    os.close(follower)
    chunks = []
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # the last of the other side is gone
            break
        if not data:
            break
        chunks.append(data)
    process.wait(60)
    os.close(leader)
    return b"".join(chunks).decode()


def test_colours_on_a_terminal_only():
    """A terminal gets colours, unless NO_COLOR is set; a pipe gets none."""
    bad = HERE / "files" / "bad.toml"
    assert "\x1b[31m" in on_a_terminal("lint", bad)
    assert "\x1b[31m" not in on_a_terminal("lint", bad, NO_COLOR="1")
    piped = subprocess.run([sys.executable, "-c", MAIN, "lint", bad], capture_output=True, text=True, check=False)
    assert "\x1b" not in piped.stderr + piped.stdout


def test_progress_on_a_terminal_only(tmp_path):
    """A check draws its bar on a terminal, and a pipe never sees it."""
    policy = HERE / "files" / "good.toml"
    arguments = ("check", policy, "--connect-to", "127.0.0.1:1")
    assert "checking" in on_a_terminal(*arguments)
    assert "checking" not in pinset(*arguments).err


def test_faults_beyond_number(tmp_path):
    """Fifty faults are shown, and how many more there are."""
    path = tmp_path / "pins.toml"
    path.write_text("[[host]]\n" * 5000)
    said = pinset("lint", path)
    assert (said.status, len(said.err.splitlines())) == (2, 53)
    assert "5000 faults" in said.err
    assert "  and 4950 more\n" in said.err


def test_passphrase_is_asked_for_on_a_terminal(tmp_path):
    """Twice, and without showing it."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{CONTROLLING}; {MAIN}", "backup", "a.com", "--dir", str(tmp_path)],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    shown = b""
    for prompt in (b"passphrase: ", b"confirmation: "):
        while prompt not in shown.lower():
            shown += os.read(leader, 4096)
        shown = b""
        os.write(leader, b"open sesame\n")
    out, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0
    assert out.startswith(b"sha256/")
    assert b"sesame" not in out


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("8w", 56), (timedelta(3), 3)])
def test_spans(text, days):
    """Days and weeks."""
    assert span(text) == timedelta(days)


@pytest.mark.parametrize("text", ["", "30", "-1d", "1.5d", "1y", "99999d"])
def test_spans_that_are_none(text):
    """Anything else is refused with an example."""
    with pytest.raises(typer.BadParameter, match="write 30d or 8w"):
        span(text)


def test_new_files(tmp_path):
    """A new file has its mode from the beginning, and takes nobody's place."""
    path = tmp_path / "key"
    write_new(path, b"secret", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"secret", 0o600)
    with pytest.raises(FileExistsError):
        write_new(path, b"other", mode=0o600)
    assert path.read_bytes() == b"secret"


def test_new_file_that_cannot_be_finished(tmp_path, monkeypatch):
    """A disk that is full leaves nothing behind."""

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "key"
    with pytest.raises(OSError, match="No space"):
        write_new(path, b"secret", mode=0o600)
    old = tmp_path / "old"
    old.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        replace_file(old, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["old"]
    assert old.read_bytes() == b"old"


def test_replaced_files(tmp_path):
    """The new content is there at once, under the same name, mode and link."""
    path, link = tmp_path / "pins.toml", tmp_path / "link.toml"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    replace_file(link, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, link.is_symlink()) == (b"new", 0o640, True)
    assert len(list(tmp_path.iterdir())) == 2
