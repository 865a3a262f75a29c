"""
Throw-away certificates, servers and an interceptor, to see pins hold and fail.

Everything listens on the loopback interface and lives as long as its ``with`` block.
"""

from pinset.testing._authority import Authority, Identity
from pinset.testing._interceptor import Interceptor
from pinset.testing._server import Recorder, TLSServer

__all__ = ["Authority", "Identity", "Interceptor", "Recorder", "TLSServer"]
