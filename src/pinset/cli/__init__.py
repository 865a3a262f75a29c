"""
The command line: ``pinset``. One module per command; no rule lives here.

Rules of the interface: results go to standard output, words to standard error; colours only on a terminal; a message
ends with the next thing to type.
"""

from __future__ import annotations

import sys


def main() -> None:
    """
    Run the command line; the entry point of the ``pinset`` script.
    """
    try:
        import typer
    except ModuleNotFoundError:
        sys.exit("the command line needs an extra: pip install 'pinset[cli]'")
    from pinset.cli._demo import demo

    app = typer.Typer(no_args_is_help=True, add_completion=False, help="Which keys a server may hold.")
    app.callback()(_version_option)
    app.command()(demo)
    app()


def _version_option() -> None:
    """
    Which keys a server may hold: TLS pinning for asyncio and httpx.
    """
