"""
The command line: ``pinset``. One module per command; no rule lives here.

Rules of the interface: results go to standard output, words to standard error; colours only on a terminal; a message
ends with the next thing to type (`pinset.cli._output`).
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


# Module and function of each command; a module is imported when its command is asked for.
_COMMANDS = {
    "fetch": ("_fetch", "fetch_command"),
    "pin": ("_pin", "pin_command"),
    "backup": ("_backup", "backup_command"),
    "check": ("_check", "check_command"),
    "history": ("_check", "history_command"),
    "lint": ("_lint", "lint_command"),
    "explain": ("_explain", "explain_command"),
    "plan": ("_plan", "plan_command"),
    "convert": ("_convert", "convert_command"),
    "intercept": ("_intercept", "intercept_command"),
    "drill": ("_drill", "drill_command"),
    "demo": ("_demo", "demo"),
}


# Groups of commands, likewise.
_GROUPS = {
    "repo": (
        "A repository of signed pin sets, which change without a release (extra updates).",
        {
            "init": ("_repo", "init_command"),
            "publish": ("_repo", "publish_command"),
            "refresh": ("_repo", "refresh_command"),
            "rotate-key": ("_repo", "rotate_key_command"),
            "status": ("_repo_state", "status_command"),
            "check": ("_repo_state", "check_command"),
        },
    ),
}


def main() -> None:
    """
    Run the command line; the entry point of the ``pinset`` script.
    """
    try:
        import typer  # noqa: F401 - asked for here, so that one sentence names the extra
    except ModuleNotFoundError:
        sys.exit("the command line needs an extra: pip install 'pinset[cli]'")
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    make_app(asked if asked in _COMMANDS or asked in _GROUPS else None)()


def make_app(only: str | None = None) -> typer.Typer:
    """
    The commands.

    Args:
        only: The one that will run; all by default. Together they cost more than all of pinset.
    """
    import typer

    app = typer.Typer(
        no_args_is_help=True, invoke_without_command=True, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_pinset)
    for name, (module, function) in _COMMANDS.items():
        if only in (None, name):
            app.command(name)(getattr(importlib.import_module(f"pinset.cli.{module}"), function))
    for group, (help_text, commands) in _GROUPS.items():
        if only in (None, group):
            part = typer.Typer(no_args_is_help=True, add_completion=False, help=help_text)
            for name, (module, function) in commands.items():
                part.command(name)(getattr(importlib.import_module(f"pinset.cli.{module}"), function))
            app.add_typer(part, name=group)
    return app


def _pinset(*, version: bool = False) -> None:
    """
    Which keys a server may hold: TLS pinning for asyncio and httpx.
    """
    if version:
        from pinset import __version__
        from pinset.cli._output import put

        put(__version__)
