"""
Text ↔ `Policy`: one module per format.

`toml` and `json` are pinset's own, two spellings of one document (`pinset.formats._document`), and lose nothing;
``policy.schema.json`` describes it to editors. The others speak of other systems: a reader returns an ``Imported``, a
writer an ``Exported``, each with the list of what was lost (`pinset.formats.exchange`); `pinset.formats.conversion` has
them all by name. They are imported from their own modules, so that a program which only loads a policy does not pay for
an XML parser.

A reader raises `PolicyError` with every fault and its place; it reads no file and no clock.
"""

from pinset.formats.json import read_json, write_json
from pinset.formats.toml import read_toml, write_toml

__all__ = ["read_json", "read_toml", "write_json", "write_toml"]
