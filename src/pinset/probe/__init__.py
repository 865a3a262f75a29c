"""
Connections that are made to look at a server's certificates, and for nothing else: no request is ever sent.
"""

from pinset.probe._connect import ProbeError, StartTLS, Target, fetch_chain
from pinset.probe._many import check_targets, fetch_targets

__all__ = ["ProbeError", "StartTLS", "Target", "check_targets", "fetch_chain", "fetch_targets"]
