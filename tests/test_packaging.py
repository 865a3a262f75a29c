"""
What a release is made of agrees with itself: versions, extras, typing markers, papers, and the tools that check the rest.
"""

from __future__ import annotations

import ast
import re
import tomllib
import zipfile
from datetime import date
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from tools import distributions, smoke

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAPERS = [ROOT / name for name in ("SECURITY.md", "CONTRIBUTING.md", "RELEASING.md")]


def extras_named_in(paths) -> set[str]:
    """The extras of each ``pinset[…]``."""
    found = re.findall(r"pinset\[([\w,]+)\]", "\n".join(path.read_text(encoding="utf-8") for path in paths))
    return {extra for names in found for extra in names.split(",")}


def sessions() -> dict[str, ast.FunctionDef]:
    """The sessions of noxfile.py."""
    functions = [each for each in tree_of_noxfile().body if isinstance(each, ast.FunctionDef)]
    return {each.name: each for each in functions if any("session" in ast.unparse(one) for one in each.decorator_list)}


def tree_of_noxfile() -> ast.Module:
    return ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
def test_typed(package):
    """Type checkers of users read the annotations of every package (PEP 561)."""
    assert (ROOT / package / "py.typed").is_file()


def test_version_stands_in_one_place():
    """Nothing has to be changed for a release but pyproject.toml; ``benchmarks/report.py`` names results that exist."""
    literal = f'"{PROJECT["version"]}"'
    files = [
        ROOT / "noxfile.py",
        *(path for room in ("src", "docs", "tools", "tests") for path in (ROOT / room).rglob("*.py")),
    ]
    assert [path for path in files if literal in path.read_text(encoding="utf-8")] == []


def test_changelog():
    """The newest heading is "Unreleased" or this version; released ones have their day, and none stands above a newer one."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [heading.split(" - ") for heading in headings if heading != "Unreleased"]
    assert headings[0] == "Unreleased" or released[0][0] == PROJECT["version"]
    assert headings.count("Unreleased") <= 1
    versions = [Version(version) for version, _ in released]
    assert versions == sorted(versions, reverse=True)
    assert all(date.fromisoformat(day) for _, day in released)


def test_extras_are_documented():
    """The documentation names every extra, and none that is not there."""
    assert extras_named_in(DOCS) == set(EXTRAS)


def test_errors_name_extras():
    """So do the errors; what needs the extra ``testing`` is loaded by pytest alone."""
    assert extras_named_in((ROOT / "src").rglob("*.py")) == set(EXTRAS) - {"testing"}


def test_extras_are_tried():
    """The session ``package`` uses the wheel with each extra alone, and without it."""
    assigned = {ast.unparse(each.targets[0]): each for each in tree_of_noxfile().body if isinstance(each, ast.Assign)}
    assert ast.literal_eval(assigned["EXTRAS"].value) == tuple(EXTRAS)
    assert smoke.USES.keys() == {"core", *EXTRAS}
    assert smoke.BRINGS.keys() == set(EXTRAS)
    assert smoke.WITHOUT.keys() == set(EXTRAS) - {"testing"}


def test_every_dependency_has_a_lower_bound():
    """What is not tested is not allowed; ``nox -s lowest`` installs just these."""
    ours = [*PROJECT["dependencies"], *(entry for listed in EXTRAS.values() for entry in listed)]
    assert [entry for entry in ours if not re.match(r"[\w.-]+(\[\w+\])?>=[\d.]+(,<\d+(\.\d+)?)?$", entry)] == []
    groups = [entry for group in PYPROJECT["dependency-groups"].values() for entry in group if isinstance(entry, str)]
    assert [entry for entry in groups if ">=" not in str(Requirement(entry).specifier)] == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)
def test_papers_name_what_is_there(paper):
    """Files and sessions that the papers for maintainers name exist; ``NAME`` stands for one that is to be written."""
    text = paper.read_text(encoding="utf-8")
    paths = [path for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*|\w+\.(?:py|md|toml))`", text) if "NAME" not in path]
    assert [path for path in paths if not (ROOT / path).exists() and path != "dist/"] == []
    for page, anchor in re.findall(r"\]\(([^)\s]+\.md)#([^)\s]+)\)", text):
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert set(re.findall(r"nox -s (\w+)", text)) <= sessions().keys()


def test_supported_version():
    """The security policy speaks of this version."""
    series = ".".join(PROJECT["version"].split(".")[:2])
    assert f"{series}.x" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


class TestDistributions:
    """``tools/distributions.py``, without building anything."""

    def test_of_a_wheel(self):
        """What lies in src, the metadata, the licence."""
        expected = distributions.expected_of_wheel(["src/pinset/_pins.py", "README.md"], "pinset-1")
        assert expected[0] == "pinset/_pins.py"
        assert all(name.startswith("pinset-1.dist-info/") for name in expected[1:])

    def test_strange(self):
        """Too much and too little, by name."""
        assert distributions.strange(["a", "b"], ["b", "c"], "w") == ["w has a, which nobody expects", "w lacks c"]
        assert distributions.strange(["a"], ["a"], "w") == []

    @pytest.mark.parametrize(
        ("files", "named"),
        [
            ({"a": "1", "b": "2"}, ""),
            ({"a": "1", "b": "3"}, "b"),
            ({"a": "1"}, "b"),
            ({"b": "2", "a": "1"}, "the order"),
        ],
    )
    def test_differing(self, tmp_path, files, named):
        """Archives are compared byte by byte, and the files that differ are named."""

        def write(name, contents):
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                for path, text in contents.items():
                    archive.writestr(zipfile.ZipInfo(path), text)
            return tmp_path / name

        found = distributions.differing(write("1.whl", {"a": "1", "b": "2"}), write("2.whl", files), "two")
        assert len(found) == bool(named)
        assert named in "".join(found)

    def test_copies(self, tmp_path):
        """A copy has the permissions and the time of its surroundings, and the same bytes."""
        for around, mode in ((distributions.HERE, 0o644), (distributions.ELSEWHERE, 0o600)):
            tree = distributions.copied(["pyproject.toml", "src/pinset/py.typed"], tmp_path, around)
            copy = tree / "pyproject.toml"
            assert copy.read_bytes() == (ROOT / "pyproject.toml").read_bytes()
            assert (copy.stat().st_mode & 0o777, copy.stat().st_mtime) == (mode, around.modified)
