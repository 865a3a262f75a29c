"""Sphinx."""

from pinset import __version__

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
