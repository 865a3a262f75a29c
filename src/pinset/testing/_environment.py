"""
How to put any program behind the interceptor: the variables from which common stacks take their proxy and their trust.

There is no standard. This is what OpenSSL, Python, Go, Ruby, Node, Deno, curl, git, pip, the clouds' SDKs, gRPC and Cargo
read; a program that reads none of them has an option of its own, or is written in Java.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "WSS_PROXY", "wss_proxy")
TRUST_VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL; with it Ruby, Go, httpx and rustls
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "BUNDLE_SSL_CA_CERT",
    "PERL_LWP_SSL_CA_FILE",
    "NIX_SSL_CERT_FILE",
    "npm_config_cafile",
)
# Where Debian and Fedora keep what their OpenSSL finds in a directory, not in a file.
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
# With these, hosts would go another way than through the interceptor.
_WAYS_ROUND = ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


def proxied_environment(proxy: str, trust_file: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    An environment in which a program goes through *proxy* and trusts the authorities of *trust_file*.

    Args:
        proxy: The URL of the proxy.
        trust_file: Certificates in PEM.
        base: The environment otherwise; that of this process by default.
    """
    environment = {
        name: value for name, value in (os.environ if base is None else base).items() if name not in _WAYS_ROUND
    }
    environment |= dict.fromkeys(PROXY_VARIABLES, proxy)
    environment |= trusting_environment(trust_file)
    # Node heeds the proxy variables only when it is told to, from 22.21 and 24 on.
    return environment | {"NODE_USE_ENV_PROXY": "1"}


def trusting_environment(trust_file: Path) -> dict[str, str]:
    """
    The variables with which a program trusts the authorities of *trust_file*.

    Args:
        trust_file: Certificates in PEM.
    """
    return dict.fromkeys(TRUST_VARIABLES, str(trust_file))


def write_trust(path: Path, root_pem: str) -> None:
    """
    Write a trust store: the authorities that programs trust here anyway, and one more.

    What goes past the interceptor, to other ports and protocols, then goes on working.

    Args:
        path: A file.
        root_pem: The one more.

    Raises:
        OSError: It cannot be written.
    """
    asked = ssl.get_default_verify_paths().cafile  # heeds SSL_CERT_FILE
    usual = next((file for file in map(Path, (asked or "", *_BUNDLES)) if file.is_file()), None)
    path.write_bytes((usual.read_bytes() + b"\n" if usual else b"") + root_pem.encode())
