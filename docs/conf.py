"""Sphinx."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from pinset import __version__

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import figures

project = "pinset"
author = "The pinset developers"
copyright = "2026, the pinset developers"  # noqa: A001
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
exclude_patterns = ["_build"]
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"
napoleon_use_ivar = True
# Types of the standard library, of httpx and private ones in signatures: there is no inventory to link to offline.
nitpick_ignore_regex = [
    ("py:.*", r"(httpx|httpcore|ssl|datetime|enum|os|collections|typing|pathlib)\b.*"),
    ("py:.*", r"(?!pinset\.).*"),
    ("py:.*", r"pinset\._.*"),
]


class Measured(SphinxRole):
    """A figure quoted from a results file; see benchmarks/figures.py. One that is not there is a warning."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        self.env.note_dependency(str(figures.file_of(self.text)))
        try:
            return [nodes.Text(figures.quote(self.text))], []
        except (LookupError, ValueError) as error:
            return [], [self.inliner.reporter.warning(str(error), line=self.lineno)]


def check_readme(_: Sphinx) -> None:
    """The README is no page of this documentation, but its figures are of the same files."""
    text = figures.README.read_text(encoding="utf-8")
    if figures.readme(text) != text:
        logging.getLogger(__name__).warning("the README's figures are not those of the results: benchmarks figures")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_role("measured", Measured())
    app.connect("builder-inited", check_readme)
