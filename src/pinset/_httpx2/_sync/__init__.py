# Made from pinset/_sync/__init__.py by tools/twins.py; change that one.
"""
The blocking side: what `pinset.httpx2` needs for threads instead of event loops.

Written here by hand is what differs: `_tasks`, `_streams`, `_network` and `_socks`. The rest is made from the module of
the same name above by ``tools/twins.py``; change that one, and run it.
"""
