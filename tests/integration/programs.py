"""
Programs that nobody here wrote, each without pins and with the pins that it knows: what runs behind an interceptor.

A program takes the URL to fetch, and its pins, from its arguments; proxy and trust from its environment.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from dataclasses import dataclass

from pinset import Pin

_REQUESTS = """
import sys, requests
from requests.adapters import HTTPAdapter

class Pinned(HTTPAdapter):
    def proxy_manager_for(self, proxy, **options):
        return super().proxy_manager_for(proxy, assert_fingerprint=sys.argv[2], **options)

session = requests.Session()
if len(sys.argv) > 2:
    session.mount("https://", Pinned(max_retries=0))
print(session.get(sys.argv[1], timeout=20).status_code)
"""

_AIOHTTP = """
import asyncio, sys, aiohttp

async def main():
    ssl = aiohttp.Fingerprint(bytes.fromhex(sys.argv[2])) if len(sys.argv) > 2 else True
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1], ssl=ssl) as response:
        print(response.status)

asyncio.run(main())
"""

_AIOHTTP_PINSET = """
import asyncio, sys, aiohttp
from pinset import pinned_ssl_context

async def main():
    context = pinned_ssl_context({"localhost": sys.argv[2:]}) if len(sys.argv) > 2 else True
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1], ssl=context) as response:
        print(response.status)

asyncio.run(main())
"""

_OPENAI = """
import asyncio, sys, openai

async def main():
    client = None
    if len(sys.argv) > 2:
        from pinset.httpx2 import PinnedAsyncClient
        client = PinnedAsyncClient({"localhost": sys.argv[2:]})
    async with openai.AsyncOpenAI(
        api_key="sk-secret", base_url=sys.argv[1], max_retries=0, timeout=20, http_client=client
    ) as sdk:
        print(await sdk.models.with_raw_response.list())

asyncio.run(main())
"""

# Node heeds no proxy variables before 22.21; the tunnel is five lines of its documentation.
_NODE = """
const http = require("http"), tls = require("tls"), crypto = require("crypto");
const [url, pin] = [new URL(process.argv[2]), process.argv[3]];
const proxy = new URL(process.env.HTTPS_PROXY);
function checkServerIdentity(host, certificate) {
  const key = new crypto.X509Certificate(certificate.raw).publicKey.export({ type: "spki", format: "der" });
  const digest = crypto.createHash("sha256").update(key).digest("base64");
  return tls.checkServerIdentity(host, certificate) || (digest === pin ? undefined : new Error("another key"));
}
http.request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path: url.host })
  .on("connect", (_, socket) => {
    const options = { socket, servername: url.hostname, ...(pin ? { checkServerIdentity } : {}) };
    const secure = tls.connect(options, () => {
      secure.write(`GET ${url.pathname} HTTP/1.1\\r\\nHost: ${url.host}\\r\\nConnection: close\\r\\n\\r\\n`);
    });
    secure.on("data", (data) => console.log(String(data).split("\\r\\n")[0]));
    secure.on("error", (error) => { console.error(error.message); process.exitCode = 1; });
  })
  .end();
"""


@dataclass(frozen=True)
class Program:
    """
    A program and its pins.

    Attributes:
        name: For the id of a test.
        binary: What has to be installed.
        module: What its Python has to have.
        script: What is written to a file and run; none for a program that needs none.
        options: Its options, where it has no script.
        pins: Its arguments for the pins of an identity; none if it has none.
    """

    name: str
    binary: str = ""
    module: str = ""
    script: str = ""
    options: tuple = ()
    pins: object = None

    @property
    def is_pinned(self):
        """Whether it has pins."""
        return self.pins is not None

    def command(self, directory, find, url, identity, *, pinned=True):
        """What to run to fetch *url* from a server with *identity*."""
        program = find(self.binary) if self.binary else sys.executable
        command = [program]
        if self.script:
            file = directory / f"program{'.cjs' if self.binary else '.py'}"
            file.write_text(self.script)
            command.append(str(file))
        pins = self.pins(identity) if self.pins and pinned else []
        if self.options:
            # wget with GnuTLS reads no variable for its trust.
            shell = f'exec "$@" {" ".join(self.options)}'
            return [find("sh"), "-c", shell, "sh", *command, *pins, url]
        return [*command, url, *pins]


def _digest(identity):
    return base64.b64encode(Pin.from_certificate(identity.chain[0]).digest).decode()


def _curl(identity):
    return ["--pinnedpubkey", f"sha256//{_digest(identity)}"]


def _wget(identity):
    return [f"--pinnedpubkey=sha256//{_digest(identity)}"]


def _fingerprint(identity):
    return [hashlib.sha256(identity.chain[0]).hexdigest()]


def _pinset(identity):
    return [identity.pin, "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]


_CURL = ("-sS", "--max-time", "20")
_WGET = ("-q", "-O", "-", "--tries=1", "--timeout=20", '--ca-certificate="$SSL_CERT_FILE"')

PROGRAMS = (
    Program("curl", binary="curl", options=_CURL),
    Program("curl-pinned", binary="curl", options=_CURL, pins=_curl),
    Program("wget", binary="wget", options=_WGET),
    Program("wget-pinned", binary="wget", options=_WGET, pins=_wget),
    Program("requests", module="requests", script=_REQUESTS),
    Program("requests-pinned", module="requests", script=_REQUESTS, pins=_fingerprint),
    Program("aiohttp", module="aiohttp", script=_AIOHTTP),
    Program("aiohttp-fingerprint", module="aiohttp", script=_AIOHTTP, pins=_fingerprint),
    Program("aiohttp-pinset", module="aiohttp", script=_AIOHTTP_PINSET, pins=_pinset),
    Program("node", binary="node", script=_NODE),
    Program("node-pinned", binary="node", script=_NODE, pins=lambda identity: [_digest(identity)]),
    Program("openai", module="openai", script=_OPENAI),
    Program("openai-pinset", module="openai", script=_OPENAI, pins=_pinset),
)
