"""
Mutate the modules that hold the rules, one by one, and count the mutants that the tests kill.

    python tests/mutation.py [MODULE …]

Works on a copy of the checkout. A surviving mutant is printed as a diff; the run fails below 95 % for a module.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = {
    "_hosts": ["test_hosts.py", "test_vectors.py"],
    "_pins": ["test_pins.py", "test_vectors.py"],
    "_policy": ["test_policy.py", "test_vectors.py"],
    "_evaluate": ["test_evaluate.py", "test_vectors.py"],
    "_tls": ["test_tls.py", "test_httpx.py"],
}
CONFIG = """
[cosmic-ray]
module-path = "src/pinset/{module}.py"
timeout = 60.0
excluded-modules = []
test-command = "{python} -m pytest -x -q -p no:cacheprovider --hypothesis-profile=mutation -m 'not integration' {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [
  # Annotations are never evaluated: `str | None` cannot be told from `str & None`.
  "core/ReplaceBinaryOperator_BitOr_.*",
  # The star of keyword-only parameters, read as a product.
  "core/ReplaceBinaryOperator_Mul_.*",
  # Members of an enumeration are equal only to themselves, and the order of their texts means nothing.
  "core/ReplaceComparisonOperator_Is_(Eq|GtE|LtE)",
  "core/ReplaceComparisonOperator_IsNot_NotEq",
]
"""


def run(module: str, copy: Path) -> float:
    """The share of mutants of *module* that were killed, in per cent."""
    tests = " ".join(f"tests/{name}" for name in MODULES[module])
    config, session = copy / f"{module}.toml", copy / f"{module}.sqlite"
    config.write_text(CONFIG.format(module=module, python=sys.executable, tests=tests), encoding="utf-8")
    tool = Path(sys.executable).parent
    for command in (
        [tool / "cosmic-ray", "init", config, session],
        [tool / "cr-filter-operators", session, config],
        [tool / "cosmic-ray", "exec", config, session],
    ):
        subprocess.run(command, cwd=copy, check=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(copy / "src")})
    report = subprocess.run(
        [tool / "cr-report", "--show-diff", "--surviving-only", session],
        cwd=copy,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    print(f"== {module}\n{report}", flush=True)
    rate = subprocess.run([tool / "cr-rate", session], cwd=copy, check=True, capture_output=True, text=True).stdout
    return 100 - float(rate)


def main() -> None:
    """Run the modules named on the command line, or all."""
    wanted = sys.argv[1:] or list(MODULES)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "copy")
        ignored = shutil.ignore_patterns(".git", ".nox", ".venv", "__pycache__", ".hypothesis")
        shutil.copytree(ROOT, copy, ignore=ignored)
        killed = {module: run(module, copy) for module in wanted}
    for module, rate in killed.items():
        print(f"{module}: {rate:.1f} % of the mutants killed")
    if min(killed.values()) < 95:
        sys.exit("below 95 %")


if __name__ == "__main__":
    main()
