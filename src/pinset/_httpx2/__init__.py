"""
`pinset.httpx2`, below its front: the modules of pinset that know httpx, for httpx2.
"""

try:
    import httpx2  # noqa: F401 - asked for here, so that one sentence names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("pinset.httpx2 needs an extra: pip install 'pinset[httpx2]'", name="httpx2") from error
