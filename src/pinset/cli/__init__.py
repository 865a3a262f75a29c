"""
The command line: ``pinset``. One module per command; no rule lives here.

Rules of the interface: results go to standard output, words to standard error; colours only on a terminal; a message
ends with the next thing to type (`pinset.cli._output`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def main() -> None:
    """
    Run the command line; the entry point of the ``pinset`` script.
    """
    try:
        import rich  # noqa: F401 - asked for here, so that one sentence names the extra
        import typer  # noqa: F401 - likewise
    except ModuleNotFoundError:
        sys.exit("the command line needs an extra: pip install 'pinset[cli]'")
    make_app()()


def make_app() -> typer.Typer:
    """
    The commands. Each is imported here and not before: together they cost more than all of pinset.
    """
    import typer

    from pinset.cli._backup import backup_command
    from pinset.cli._check import check_command, history_command
    from pinset.cli._convert import convert_command
    from pinset.cli._demo import demo
    from pinset.cli._explain import explain_command
    from pinset.cli._fetch import fetch_command
    from pinset.cli._lint import lint_command
    from pinset.cli._pin import pin_command
    from pinset.cli._plan import plan_command

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_pinset)
    app.command("fetch")(fetch_command)
    app.command("pin")(pin_command)
    app.command("backup")(backup_command)
    app.command("check")(check_command)
    app.command("history")(history_command)
    app.command("lint")(lint_command)
    app.command("explain")(explain_command)
    app.command("plan")(plan_command)
    app.command("convert")(convert_command)
    app.command()(demo)
    return app


def _pinset() -> None:
    """
    Which keys a server may hold: TLS pinning for asyncio and httpx.
    """
