"""
The blocking side: what `pinset.httpx` needs for threads instead of event loops.

Written here by hand is what differs: `_tasks`, `_streams`, `_network` and `_socks`. The rest is made from the module of
the same name above by ``tools/twins.py``; change that one, and run it.
"""
