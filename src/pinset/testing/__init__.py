"""
Throw-away certificates, servers and an interceptor, to see pins hold and fail.

Everything listens on the loopback interface and lives as long as its ``with`` block. With pytest, the fixtures of
``pytest_pinset`` make all of it.
"""

from pinset.operate.interception import Contact, Reaction
from pinset.testing._authority import Authority, Identity
from pinset.testing._environment import proxied_environment, trusting_environment, write_trust
from pinset.testing._hostile import HostileChain, hostile_chains
from pinset.testing._interceptor import Interceptor
from pinset.testing._observer import FrozenClock, RecordingObserver
from pinset.testing._origin import HTTPSServer
from pinset.testing._server import Recorder, TLSServer

__all__ = [
    "Authority",
    "Contact",
    "FrozenClock",
    "HTTPSServer",
    "HostileChain",
    "Identity",
    "Interceptor",
    "Reaction",
    "Recorder",
    "RecordingObserver",
    "TLSServer",
    "hostile_chains",
    "proxied_environment",
    "trusting_environment",
    "write_trust",
]
