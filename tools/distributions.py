"""
Build sdist and wheel in a way that anyone can repeat, and look into them.

    python tools/distributions.py DIRECTORY

Rules of this program:

1. What git tracks is built, as it stands in the working tree; nothing that happens to lie beside it.
2. Two builds in two places, with other file times, umask, time zone, hash seed and order on the disk, are the same bytes.
3. The wheel that is made of the sdist is the wheel that is made of the tree.
4. The sdist holds every tracked file: what can be done in a checkout can be done with it, the tests above all.
5. The wheel holds the modules and their licence. A file that nobody expects there is an error, and so is one that is missing.

Needs git and the dependency group ``release``. What is different or unexpected is said by name, and DIRECTORY is left as it was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of the wheel, beside what lies in src.
METADATA = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    What must make no difference to a build.

    Attributes:
        name: Of the directory it is done in.
        umask: Takes permissions away from every file.
        modified: The time of every file, in seconds since 1970.
        backwards: Whether the files are put on the disk in reverse order.
        environment: Variables.
    """

    name: str
    umask: int
    modified: int
    backwards: bool
    environment: Mapping[str, str]


HERE = Surroundings("pinset", 0o022, 1_700_000_000, False, {"TZ": "UTC", "PYTHONHASHSEED": "1"})
ELSEWHERE = Surroundings("another place", 0o077, 1_000_000_000, True, {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"})


def build_twice(room: Path) -> tuple[Path, Path]:
    """
    The sdist and the wheel, built in *room*.

    Raises:
        SystemExit: They depend on where and how they were built.
    """
    tracked = git("ls-files", "-z").rstrip("\0").split("\0")
    # The date of the files inside. It is that of the commit, so that whoever has the commit has the date.
    epoch = git("log", "-1", "--format=%ct").strip()
    tree = copied(tracked, room, HERE)
    sdist, wheel = built(tree, room / "first", HERE, epoch)
    (of_tree,) = built(tree, room / "of the tree", HERE, epoch, "--wheel")
    others = built(copied(tracked, room, ELSEWHERE), room / "second", ELSEWHERE, epoch)
    differences = [
        *differing(sdist, others[0], "the two builds"),
        *differing(wheel, others[1], "the two builds"),
        *differing(wheel, of_tree, "sdist and tree"),
    ]
    stem = sdist.name.removesuffix(".tar.gz")
    differences += strange(members(sdist), [f"{stem}/{name}" for name in (*tracked, "PKG-INFO")], sdist.name)
    differences += strange(members(wheel), expected_of_wheel(tracked, stem), wheel.name)
    if differences:
        sys.exit("\n".join(differences))
    return sdist, wheel


def copied(tracked: Sequence[str], room: Path, around: Surroundings) -> Path:
    """A copy of the tracked files, with the permissions, times and order of *around*."""
    tree = room / around.name
    for name in reversed(tracked) if around.backwards else tracked:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        # Of the permissions, git keeps whether a file can be run.
        target.chmod((0o777 if os.access(ROOT / name, os.X_OK) else 0o666) & ~around.umask)
        os.utime(target, (around.modified, around.modified))
    return tree


def built(tree: Path, directory: Path, around: Surroundings, epoch: str, *options: str) -> list[Path]:
    """What ``python -m build`` makes of *tree*: the sdist and the wheel of that, or as *options* say. Sorted."""
    command = [sys.executable, "-m", "build", "--installer", "uv", *options, "--outdir", str(directory), str(tree)]
    environment = {**os.environ, **around.environment, "SOURCE_DATE_EPOCH": epoch}
    done = subprocess.run(
        command,
        env=environment,
        umask=around.umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"python -m build failed in {tree}:\n{done.stdout}")
    return sorted(directory.glob("pinset-*"), key=lambda path: path.suffix)


def members(archive: Path) -> dict[str, tuple[object, ...]]:
    """The files of an archive, each with what the archive says of it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {each.filename: (each.CRC, each.date_time, each.external_attr) for each in wheel.infolist()}
    with tarfile.open(archive) as sdist:
        return {
            each.name: (sdist.extractfile(each).read(), each.mtime, each.mode, each.uid, each.uname, each.gname)
            for each in sdist.getmembers()
        }


def differing(first: Path, second: Path, between: str) -> list[str]:
    """In what two archives that should be the same differ."""
    if first.read_bytes() == second.read_bytes():
        return []
    contents, others = members(first), members(second)
    names = sorted(name for name in contents.keys() | others.keys() if contents.get(name) != others.get(name))
    return [f"{first.name} differs between {between}: {', '.join(names) or 'the order or the packing of its files'}"]


def expected_of_wheel(tracked: Iterable[str], stem: str) -> list[str]:
    """The files of the wheel: those of src, the metadata and the licence."""
    sources = [name.removeprefix("src/") for name in tracked if name.startswith("src/")]
    return [*sources, *(f"{stem}.dist-info/{name}" for name in METADATA)]


def strange(found: Iterable[str], expected: Iterable[str], name: str) -> list[str]:
    """What an archive has too much, and too little."""
    there, wanted = set(found), set(expected)
    return [f"{name} has {each}, which nobody expects" for each in sorted(there - wanted)] + [
        f"{name} lacks {each}" for each in sorted(wanted - there)
    ]


def git(*arguments: str) -> str:
    """What git answers."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"only a git checkout says what belongs to it: {done.stderr.strip()}")
    return done.stdout


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/distributions.py DIRECTORY")
    directory = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as room:
        archives = build_twice(Path(room))
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("pinset-*"):
            old.unlink()
        for archive in archives:
            shutil.copyfile(archive, directory / archive.name)
            print(directory / archive.name)


if __name__ == "__main__":
    main()
