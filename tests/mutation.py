"""
Mutate the modules that hold the rules, one by one, and count the mutants that the tests kill.

    python tests/mutation.py [MODULE …]

Works on a copy of the checkout; the operators are cosmic-ray's. What is counted:

1. The tests pass on the module as it is, or nothing is counted.
2. No mutant is a text that Python cannot parse, or that differs only in annotations (never evaluated) or in asking for
   an enumeration's member or None by ``==`` instead of ``is``.
3. A survivor is printed as a diff. Those that no test can kill stand in `EQUIVALENT` with the reason; they are left out
   of the rate. An entry that a run did not need is an error.
4. The run fails below 95 % for a module.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

# Loaded once for all runs; no part of pinset may be among them.
SHARED = (
    "asyncio", "cryptography.x509", "h2.connection", "hypothesis.strategies", "httpcore", "httpx", "trio", "uvloop",
)  # fmt: skip
ROOT = Path(__file__).parent.parent
MODULES = {
    "_hosts": ["test_hosts.py", "test_vectors.py", "test_values.py"],
    "_certificates": ["test_certificates.py", "test_vectors.py", "test_values.py"],
    "_pins": ["test_pins.py", "test_vectors.py", "test_values.py"],
    "_policy": ["test_policy.py", "test_vectors.py", "test_values.py"],
    "_evaluate": ["test_evaluate.py", "test_vectors.py", "test_values.py"],
    "_sessions": ["test_sessions.py", "test_values.py"],
    "_enforcement": ["test_pins_only.py", "test_tls.py", "test_values.py"],
    "_tls": ["test_pins_only.py", "test_sessions.py", "test_tls.py", "test_values.py"],
    "_tls_socket": ["test_tls.py"],
    "_pool": ["test_httpx.py", "test_waiting.py", "test_generations.py", "test_goaway.py"],
}
BAR = 95.0
MEMORY = 4 << 30  # a mutant that never stops to collect would take all there is
# By module: the mutated line, if need be with the one before it, and why it does what the original does.
_SMALL = "CPython has one object for each number of one byte"
_PAST_THE_END = "what follows is a SEQUENCE, and that is neither a version nor a time"
_LEAST = "of the two texts, certificate is the lesser"
_GREATEST = "TLS 1.3 is the greatest of the versions that we let OpenSSL use"
_MATCHED = "here it is matched or mismatched, and the second is the greater text"
_PARTS = "a version has five parts, and is never equal to fewer"
_OFFERED = "a session and its stamp have the same chain"
_DERIVED = "made of the fields that are compared anyway"
EQUIVALENT: dict[str, dict[str, str]] = {
    "_evaluate": {
        "def _decide(rule: PinSet, outcome: Outcome, /, expired: bool) -> Decision:": "its one caller names the argument",
        "return Decision.ALLOW if outcome <= Outcome.MATCHED else Decision.REPORT": _MATCHED,
        "return Decision.ALLOW if outcome <= Outcome.MATCHED else Decision.REFUSE": _MATCHED,
        "if expired and rule.on_expiry <= OnExpiry.BLOCK:": "of the texts, block is the least",
        "if rule.mode is Mode.REPORT_ONLY or (expired and rule.on_expiry >= OnExpiry.UNPIN):": (
            "of the texts, unpin is the greatest"
        ),
        "if rule.mode >= Mode.REPORT_ONLY or (expired and rule.on_expiry is OnExpiry.UNPIN):": (
            "of the texts, report-only is the greatest"
        ),
        "decision = Decision.REFUSE if policy.unlisted >= Unlisted.DENY else Decision.ALLOW": (
            "of the two texts, deny is the greater"
        ),
    },
    "_certificates": {
        "if tbs.peek() is _VERSION:": _SMALL,
        "if tag is _UTC_TIME:": _SMALL,
        "if at + 2 > self._end or data[at] is not tag:": _SMALL,
        'if len(text) is not len("YYYYMMDDHHMMSSZ") or not text.endswith("Z"):  # strptime ignores case': _SMALL,
        'if len(text) < len("YYYYMMDDHHMMSSZ") or not text.endswith("Z"):  # strptime ignores case': (
            "strptime takes no longer text"
        ),
        'text = ("19" if text[: 3] >= "50" else "20") + text': "the third digit does not change the order",
        "return self._data[self._at] if self._at != self._end else None": "the cursor never passes the end",
        "return self._data[self._at] if self._at <= self._end else None": _PAST_THE_END,
        "return self._data[self._at] if self._at is not self._end else None": _PAST_THE_END,
        "if self._at < self._end:": "the cursor never passes the end",
        "if tag <= _UTC_TIME:": "of the two tags, that of UTCTime is the lesser",
        "if length < 0x80 or length >> (8 * (octets - 1)) <= 0:": "no length is negative",
    },
    "_pins": {
        "if not isinstance(self.digest, bytes) or len(self.digest) is not _DIGEST_SIZE:": _SMALL,
        "if len(digest) is not _DIGEST_SIZE:": _SMALL,
        "if self.kind <= PinKind.CERTIFICATE:": _LEAST,
        "return cls(kind, hashlib.sha256(der if kind <= PinKind.CERTIFICATE else spki).digest())": _LEAST,
        'return base64.b64decode("".join(wanted[ -1].split()), validate=True)': "there is exactly one",
        "_ENCODED_SIZE = 4 * -(~_DIGEST_SIZE // 3)": "44 too, for a digest of 32 bytes",
    },
    "_policy": {
        "if pin.kind != role.kind:": "both are members of PinKind",
        "patterns: tuple[HostPattern, ...] = field(init=False, repr=False, compare=True)": _DERIVED,
        "requirements: tuple[Requirement, ...] = field(init=False, repr=False, compare=True)": _DERIVED,
        'if value is None and name == "on_expiry":\nbreak': "on_expiry is the last of the three",
        "near = difflib.get_close_matches(str(word), list(choices), n= 2)": "only the nearest is read",
        'return f"did you mean \'{near[ -1]}\'?" if near else ""': "there is one at most",
    },
    "_sessions": {
        "if self._sessions.get(key) == session:": "what is equal is the same ticket",
        "return self._reads < _MOST_LEAKS and self._refusals.get(key, 1) < _MOST_REFUSALS": "one is below three as well",
        "return self._reads < _MOST_LEAKS and self._refusals.get(key, -1) < _MOST_REFUSALS": "-1 is below three as well",
        "SESSIONS_LEAK = sys.version_info <= (3, 12, 8) or (3, 13) <= sys.version_info < (3, 13, 1)": _PARTS,
        "SESSIONS_LEAK = sys.version_info < (3, 12, 8) or (3, 13) <= sys.version_info <= (3, 13, 1)": _PARTS,
        "SESSIONS_LEAK = sys.version_info < (3, 12, 8) or (3, 13) < sys.version_info < (3, 13, 1)": _PARTS,
    },
    "_tls": {
        'once = self.version() >= "TLSv1.3" and not SESSIONS_LEAK': _GREATEST,
        'if self._expected is not None and self.version() < "TLSv1.3":': _GREATEST,
        'if session is not None and (session.has_ticket or self.version() < "TLSv1.3"):': _GREATEST,
        "if context.verify_mode < ssl.CERT_REQUIRED:": "it is the greatest of the three",
        "if self._stamp.verdict.decision <= Decision.ALLOW and store.wants(key):": "of the texts, allow is the least",
        "if self._enforcement is not None and self._enforcement.pinner != enforcement.pinner:": (
            "pinners are equal only to themselves"
        ),
        "if sys.version_info > (3, 13):": _PARTS,
        "if self._offered is None or self._tls.getpeercert(binary_form=True) != self._offered[ 1].chain[0]:": _OFFERED,
        "if self._offered is None or self._tls.getpeercert(binary_form=True) != self._offered[ -1].chain[0]:": _OFFERED,
    },
}


def main() -> None:
    """Run the modules named on the command line, or all."""
    wanted = sys.argv[1:] or list(MODULES)
    for name in SHARED:
        importlib.import_module(name)
    assert "pinset" not in sys.modules
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "copy")
        ignored = shutil.ignore_patterns(".git", ".nox", ".venv", "__pycache__", ".hypothesis")
        shutil.copytree(ROOT, copy, ignore=ignored)
        results = {module: run(module, copy) for module in wanted}
    unneeded: list[str] = []
    rates: list[float] = []
    for module, (killed, survived, equivalent) in results.items():
        rates.append(100 * killed / (killed + survived))
        print(f"{module}: {rates[-1]:.1f} %: {killed} mutants killed, {survived} not; {len(equivalent)} are equivalent")
        unneeded += [f"{module}: {line}" for line in EQUIVALENT.get(module, {}) if line not in equivalent]
    if unneeded:
        sys.exit("no survivor, take it out of EQUIVALENT:\n" + "\n".join(unneeded))
    if min(rates) < BAR:
        sys.exit(f"below {BAR:g} %")


def run(module: str, copy: Path) -> tuple[int, int, list[str]]:
    """How many mutants of *module* the tests killed, how many not, and the equivalent ones by their lines."""
    path = copy / "src" / "pinset" / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    began = time.monotonic()
    # Once with byte code, which all later runs read.
    if not passes(module, copy, timeout=600, write_bytecode=True):
        sys.exit(f"{module}: the tests fail without a mutation")
    timeout = 10 + 5 * (time.monotonic() - began)
    killed = survived = 0
    equivalent: list[str] = []
    print(f"== {module}", flush=True)
    for mutant in mutants(source):
        path.write_text(mutant, encoding="utf-8")
        if not passes(module, copy, timeout=timeout):
            killed += 1
        elif lines := known(source, mutant, EQUIVALENT.get(module, {})):
            equivalent.append(lines)
        else:
            survived += 1
            print(*difference(source, mutant), "", sep="\n", flush=True)
    path.write_text(source, encoding="utf-8")
    return killed, survived, equivalent


def mutants(source: str) -> Iterator[str]:
    """Every text that one mutation makes of *source*, once."""
    seen = {meaning(source)}
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments():
            continue  # does nothing without
        operator = operator_class()
        for occurrence in range(sum(1 for node in nodes for _ in operator.mutation_positions(node))):
            try:
                mutant = mutate_code(source, operator, occurrence)
            except AttributeError:
                continue  # cosmic-ray 8.7 cannot replace an exception with a dotted name
            if mutant is not None and (meant := meaning(mutant)) is not None and meant not in seen:
                seen.add(meant)
                yield mutant


class _Meaning(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        match node.comparators:
            case [ast.Constant(value=None)]:
                single = True
            case [ast.Attribute(attr=name)]:
                single = name.isupper()
            case _:
                single = False
        match node.ops:
            case [ast.Eq()] if single:
                node.ops = [ast.Is()]
            case [ast.NotEq()] if single:
                node.ops = [ast.IsNot()]
        return self.generic_visit(node)


def meaning(source: str) -> str | None:
    """The syntax tree without what makes no difference; None if there is no tree."""
    try:
        return ast.dump(_Meaning().visit(ast.parse(source)))
    except SyntaxError:
        return None


def passes(module: str, copy: Path, *, timeout: float, write_bytecode: bool = False) -> bool:
    """Whether the tests of *module* pass in time, in a process that begins with all but pinset and the tests loaded."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(module, copy, write_bytecode))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode == 0


def run_tests(module: str, copy: Path, write_bytecode: bool) -> None:
    """What the process does: it ends with pytest's exit code."""
    os.setsid()  # so that what a test has started can be ended with it
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(copy)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.path.insert(0, str(copy / "src"))
    sys.pycache_prefix = str(copy / "bytecode")
    # The byte code of a mutant would outlive it: Python knows a changed file by its size and its second.
    sys.dont_write_bytecode = not write_bytecode
    # What is loaded already cannot have its asserts rewritten, and pytest would complain.
    options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--hypothesis-profile=mutation"]
    tests = [f"tests/{name}" for name in MODULES[module]]
    os._exit(int(pytest.main([*options, "-m", "not integration", *tests])))


def difference(source: str, mutant: str) -> list[str]:
    """The mutation with a line around it."""
    return list(difflib.unified_diff(source.splitlines(), mutant.splitlines(), lineterm="", n=1))[2:]


def known(source: str, mutant: str, equivalent: dict[str, str]) -> str | None:
    """The entry of *equivalent* that the mutation is."""
    new = "\n".join(["", *(line[1:].strip() for line in difference(source, mutant) if line[0] in "+ "), ""])
    return next((lines for lines in equivalent if f"\n{lines}\n" in new), None)


if __name__ == "__main__":
    main()
