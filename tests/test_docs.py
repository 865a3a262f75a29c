"""
Every example of the documentation runs.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from cli.transcripts import pinset

from pinset import Pin, Policy
from pinset.cli import make_app
from pinset.formats import read_json, read_toml
from pinset.testing import Identity

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"^```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def absent_modules(page: Path) -> list[str]:
    """What the Python of a page imports and is not here; where everything has to be here, the import itself shall fail."""
    if os.environ.get("PINSET_REQUIRE_DOWNSTREAM") == "1":
        return []
    imports = [
        name
        for code in blocks(page, "python")
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    ]
    return sorted({top for name in imports if importlib.util.find_spec(top := name.split(".")[0]) is None})


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of a page runs from top to bottom; what talks to a host that is not ours is compiled and its pins read."""
    if absent := absent_modules(page):
        pytest.skip(f"{', '.join(absent)}: not installed; nox -s downstream has them")
    monkeypatch.chdir(tmp_path)
    if "pinset.updates" in page.read_text(encoding="utf-8"):
        pytest.importorskip("tuf")
    scope: dict[str, object] = {}
    for code in blocks(page, "python"):
        compiled = compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if "async with" in code and "def " not in code:
            tree = ast.parse(code, mode="exec")
            pins = next(node for node in tree.body if isinstance(node, ast.Assign))
            Policy.from_mapping(ast.literal_eval(pins.value))
        else:
            exec(compiled, scope)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "toml")], ids=lambda page: page.name)
def test_toml_blocks_are_policies(page: Path) -> None:
    """The TOML of a page is a valid policy."""
    for text in blocks(page, "toml"):
        read_toml(text, source=str(page))


def test_no_block_hides() -> None:
    """Every block is of a kind that is run, parsed or nothing that could be."""
    kinds = {kind for page in PAGES for kind in re.findall(r"^```(\w+)$", page.read_text("utf-8"), re.MULTILINE)}
    assert kinds == {"python", "toml", "json", "console", "text", "yaml", "nginx"}


def test_relative_links_lead_somewhere() -> None:
    """No page links to a file that is not there."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists() or (page.parent / f"{target}.md").exists(), f"{page.name}: {target}"


def test_tests_that_pages_name_exist() -> None:
    """The threat model and others say which test shows what; a test that was renamed is renamed there, too."""
    defined = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
        for name in re.findall(r"`(test_\w+)`", text):
            assert f"def {name}(" in defined, f"{page.name}: {name}"
        for name in re.findall(r"`(Test\w+)`", text):
            assert f"class {name}:" in defined, f"{page.name}: {name}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "json")], ids=lambda page: page.name)
def test_json_blocks_are_what_they_show(page: Path) -> None:
    """The JSON of a page parses, and a policy is a valid one."""
    for text in blocks(page, "json"):
        if "host" in json.loads(text):
            read_json(text, source=str(page))


def typed(code: str) -> Iterator[list[str]]:
    """The words of every simple command of a shell script, or of the lines with a prompt if it has such lines."""
    lines = code.replace("\\\n", " ").splitlines()
    for line in [line[2:] for line in lines if line.startswith("$ ")] or lines:
        for script in [line, *re.findall(r"\$\(([^()]*)\)", line)]:
            lexer = shlex.shlex(re.sub(r" [0-9]>", " >", script), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            for is_operator, words in itertools.groupby(lexer, key=lambda word: set(word) <= set("();<>|&")):
                if not is_operator:
                    yield list(words)


def commands(page: Path) -> list[list[str]]:
    """The pinset commands that a page types, in consoles, crontabs and settings of CI, without the first word."""
    scripts = blocks(page, "console")
    for code in blocks(page, "text") + blocks(page, "yaml"):
        scripts += re.findall(r"(?<!\S)pinset .*", re.sub(r"\n +--", " --", code))
    lines = [words for script in scripts for words in typed(script)]
    return [words[1:] for words in lines if Path(words[0]).name == "pinset"]


def mentions(page: Path) -> list[list[str]]:
    """The pinset commands that its sentences name."""
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    return [shlex.split(words) for words in re.findall(r"`pinset ([^`]+)`", prose)]


def parse(arguments: list[str]) -> None:
    """Parse as the command line does, and run nothing."""
    command, words = typer.main.get_command(make_app()), list(arguments)
    while words and (members := getattr(command, "commands", None)) and not words[0].startswith("-"):
        assert words[0] in members, f"there is no command {words[0]}"
        command = members[words.pop(0)]
    if words or not hasattr(command, "commands"):
        with command.make_context("pinset", words):
            pass


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda page: page.name)
def test_commands_are_those_of_the_command_line(page: Path) -> None:
    """Every command that a page types exists, with its options, their values and all that it needs."""
    for arguments in commands(page):
        parse(arguments)


@pytest.mark.parametrize("page", [p for p in PAGES if mentions(p)], ids=lambda page: page.name)
def test_commands_in_sentences_exist(page: Path) -> None:
    """What a sentence names may leave out what the command needs, and has no options that do not exist."""
    for arguments in mentions(page):
        try:
            parse(arguments)
        except typer.BadParameter as error:
            assert type(error).__name__ == "MissingParameter", f"pinset {arguments}: {error}"


@pytest.mark.parametrize("page", [p for p in PAGES if FILE.search(p.read_text("utf-8"))], ids=lambda page: page.name)
def test_commands_on_the_files_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a page shows files, its commands are run on them, and answer what the page says."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILE.findall(page.read_text(encoding="utf-8")):
        Path(name).write_text(content, encoding="utf-8")
    for code in blocks(page, "console"):
        command, *shown = code.splitlines()
        for arguments in typed(command):
            if arguments[0] == "pinset":
                said = pinset(*arguments[1:])
                assert said.status != 2, said.err
                assert not shown or shown in ((said.err + said.out).splitlines(), (said.out + said.err).splitlines())


@pytest.mark.integration
def test_openssl_prints_the_same_pins(leaf: Identity, tmp_path: Path) -> None:
    """The lines for openssl give the pins of certificate, request and key; the backup of two lines is one."""
    if shutil.which("openssl") is None:
        assert os.environ.get("PINSET_REQUIRE_INTEGRATION") != "1"
        pytest.skip("openssl is not installed")
    leaf.write(tmp_path, "server")
    lines = [line[2:] for code in blocks(ROOT / "docs/howto/get-pins.md", "console") for line in code.splitlines()]
    making = [line for line in lines if line.startswith(("openssl genpkey", "openssl req -new"))]
    printing = [line for line in lines if line.startswith("openssl") and line.endswith("base64") and " -in " in line]
    assert (len(making), len(printing)) == (2, 3)
    for line in making:
        secret = "-pass" if "genpkey" in line else "-passin"
        subprocess.run(f"{line} {secret} pass:open-sesame", shell=True, cwd=tmp_path, check=True, timeout=60)
    pins = [subprocess.check_output(line, shell=True, cwd=tmp_path, text=True, timeout=60).strip() for line in printing]
    request = str(Pin.from_csr((tmp_path / "backup.csr").read_bytes()))
    assert [f"sha256/{pin}" for pin in pins] == [leaf.pin, request, leaf.pin]
