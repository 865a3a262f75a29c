"""
Text ↔ `Policy`: one module per format.

`toml` and `json` are pinset's own, two spellings of one document (`pinset.formats._document`). A reader raises
`PolicyError` with every fault and its place; it reads no file and no clock.
"""

from pinset.formats.json import read_json, write_json
from pinset.formats.toml import read_toml, write_toml

__all__ = ["read_json", "read_toml", "write_json", "write_toml"]
