"""
Every transcript of this folder, replayed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli.transcripts import blocks

HERE = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path, tmp_path, monkeypatch):
    """What the commands answer is what the transcript says, letter by letter."""
    shutil.copytree(HERE / "files", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    commands = blocks(path)
    assert commands
    for block in commands:
        block.replay()
