"""
Signed pin sets from a control plane: policies that change without a release (extra ``updates``).

`TufPinSource` reads a repository of The Update Framework (TUF), verifies it from a root that the program brings along,
and keeps the policy of its clients up to date. `Repository` makes such a repository; so does ``pinset repo``.
"""

try:
    import tuf.api.metadata  # noqa: F401 - asked for here, so that one sentence names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("signed updates need an extra: pip install 'pinset[updates]'", name="tuf") from error

from pinset.updates._errors import UpdateError, UpdateFault
from pinset.updates._keeper import OnStale, Origin, SourceStatus
from pinset.updates._repository import KeyRole, Repository
from pinset.updates._signing import Keys, Lifetimes
from pinset.updates._trust import RoleState, Verified
from pinset.updates._tuf_source import TufPinSource

__all__ = [
    "KeyRole",
    "Keys",
    "Lifetimes",
    "OnStale",
    "Origin",
    "Repository",
    "RoleState",
    "SourceStatus",
    "TufPinSource",
    "UpdateError",
    "UpdateFault",
    "Verified",
]
