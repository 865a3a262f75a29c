"""
A program that looks for updates again and again; started by tests, which kill it. Prints a line for each look.

Arguments: URL, root, cache, CAs, number of looks (0: for ever; -1: fork a program that looks for ever for each line of
standard input), largest file in bytes (0: any).
"""

from __future__ import annotations

import os
import resource
import sys
from datetime import timedelta
from pathlib import Path

from publishing import policy

from pinset.updates import TufPinSource


def breed(*arguments):
    """To start Python takes a second; to fork what has started, none."""
    for _ in sys.stdin:
        if (pid := os.fork()) == 0:
            main(*arguments, "0", "0")
        _say("born", pid)
        os.waitpid(pid, 0)
        _say("dead")


def _say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(url, root, cache, cafile, looks, largest):
    if looks == "-1":
        breed(url, root, cache, cafile)
        return
    if int(largest):  # what a full disk does: a write is refused in the middle
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), resource.RLIM_INFINITY))
    source = TufPinSource(
        url,
        root=Path(root).read_bytes(),
        fallback=policy(1, 2),
        cache_dir=cache,
        cafile=cafile,
        min_interval=timedelta(0),
    )
    with source:
        done = 0
        while not int(looks) or done < int(looks):
            status = source.refresh_blocking()
            fault = "-" if status.error is None else status.error.fault
            _say(status.versions.get("timestamp", 0), fault, len(source.pinner.policy.pin_sets[0].pins))
            done += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
