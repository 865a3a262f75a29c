"""
`pinset.httpx2`, below its front: the modules of pinset that know httpx, for httpx2.
"""
