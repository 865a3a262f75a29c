"""
Real servers on the loopback interface: nginx, curl, and the proxies a client may have to go through.

Everything is made once a session and stopped by its own process handle. A program that is missing skips its tests,
unless ``PINSET_REQUIRE_INTEGRATION=1`` says that it has to be there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import pwd
import re
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from ways import WAYS

import pinset
from pinset.testing import Authority, Identity

HOST = "localhost"
PATIENCE = 20.0
TLS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def find_program(name, *, given=None):
    """The path of a program; skips the test without it, or fails where all are required."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(given or name, path=path)
    if found is None:
        reason = f"{given or name} is not installed"
        if os.environ.get("PINSET_REQUIRE_INTEGRATION") == "1":
            pytest.fail(f"{reason}, and PINSET_REQUIRE_INTEGRATION=1 requires it")
        pytest.skip(reason)
    return found


def wait_until(condition, what):
    """The first true answer of *condition*."""
    end = time.monotonic() + PATIENCE
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.01)
    return answer


def free_ports(count):
    """Ports that nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _stop(process):
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)


@contextlib.contextmanager
def running(directory, ports_needed, configure):
    """
    A program that listens on free ports. *configure* gets them and returns the command; what it prints is logged.
    """
    log = directory / "output.log"
    for attempt in range(3):
        ports = free_ports(ports_needed)
        with log.open("wb") as output:
            process = subprocess.Popen(
                configure(ports), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory
            )
        try:
            # A port may have been taken since; then the program gives up, and is given others.
            wait_until(lambda: process.poll() is not None or all(map(_accepts, ports)), process.args[0])  # noqa: B023
            if process.poll() is None:
                yield ports, log
                return
        finally:
            _stop(process)
        if attempt == 2:
            raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{log.read_text(errors='replace')}")


@dataclass(frozen=True)
class Log:
    """A log file that grows."""

    path: Path

    def text(self, since=0):
        """What was logged after the first *since* bytes."""
        return self.path.read_bytes()[since:].decode(errors="replace") if self.path.exists() else ""

    def size(self):
        """Its present length."""
        return self.path.stat().st_size if self.path.exists() else 0

    def wait_for(self, pattern, since=0):
        """The first match of *pattern* after *since*, as soon as there is one."""
        return wait_until(lambda: re.search(pattern, self.text(since)), f"{pattern!r} in {self.path.name}")


@dataclass(frozen=True)
class Origin:
    """One virtual server of nginx: an identity, a TLS version, a port and logs of its own."""

    identity: Identity
    version: str
    port: int
    access: Log
    errors: Log

    def url(self, path, scheme="https"):
        """The URL of *path*."""
        return f"{scheme}://{HOST}:{self.port}{path}"

    def request(self, path):
        """What nginx logged of the request for *path*, once it has."""
        line = self.access.wait_for(rf"(?m)^{re.escape(path)}\|.*$")[0]
        names = ("path", "version", "protocol", "cipher", "client_verify", "client_subject")
        return dict(zip(names, line.split("|"), strict=True))

    def has_seen(self, path):
        """Whether a request for *path* was logged."""
        return f"{path}|" in self.access.text()


_LOG_FORMAT = "$request_uri|$ssl_protocol|$server_protocol|$ssl_cipher|$ssl_client_verify|$ssl_client_s_dn"


def _nginx_server(directory, name, port, *, version, files, extra):
    chain, key = files
    ipv6 = f"listen [::1]:{port} ssl http2;" if _localhost_is_ipv6_too() else ""
    return f"""
    server {{
        listen 127.0.0.1:{port} ssl http2;
        {ipv6}
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols {version};
        access_log {directory}/{name}.access.log pinset;
        error_log {directory}/{name}.error.log {"debug" if extra else "info"};
        {extra}
        location / {{ return 200 "hello"; }}
    }}"""


def _localhost_is_ipv6_too():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return any(info[0] == socket.AF_INET6 for info in socket.getaddrinfo(HOST, 1))
    return False


def _nginx_config(directory, servers):
    temporary = "".join(
        f"    {kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # One process: what was logged before an answer to a later request was logged for good.
    return f"""
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.error.log info;
events {{ worker_connections 256; }}
http {{
{temporary}    log_format pinset '{_LOG_FORMAT}';
    {"".join(servers)}
}}
"""


@dataclass
class Lab:
    """
    The authorities, the servers, and clients that trust both authorities.

    Attributes:
        genuine: The authorities of the genuine servers, by kind of key.
        rogue: Authorities that the clients trust as well, by kind of key.
        clients: The authority of client certificates.
        origins: By kind of key, TLS version, and "genuine" or "rogue".
        mutual: Servers that ask for a client certificate, by TLS version.
    """

    genuine: dict = field(default_factory=lambda: {kind: Authority(f"Genuine {kind}", key=kind) for kind in KINDS})
    rogue: dict = field(default_factory=lambda: {kind: Authority(f"Rogue {kind}", key=kind) for kind in KINDS})
    clients: Authority = field(default_factory=lambda: Authority("Clients", intermediate=False))
    origins: dict = field(default_factory=dict)
    mutual: dict = field(default_factory=dict)

    @property
    def authorities(self):
        """Every authority a client trusts for servers."""
        return (*self.genuine.values(), *self.rogue.values())

    def context(self, *more):
        """A plain client context that trusts the genuine and the rogue authorities, and *more*."""
        first, *others = self.authorities
        return first.client_context(*others, *more)

    def cadata(self):
        """The PEM text of their roots."""
        return "".join(authority.root_pem for authority in self.authorities)

    def backup(self):
        """The pin of a key that nobody holds."""
        return pinset.Pin(pinset.PinKind.SPKI, secrets.token_bytes(32))

    def pins(self, origin, place="leaf"):
        """A policy with the key at *place* of the chain of *origin*, and a backup; place "none": two backups."""
        kind = next(kind for kind in KINDS if self.origins.get((kind, origin.version, "genuine")) is origin)
        authority = self.genuine[kind]
        certificates = {"leaf": origin.identity.chain[0], "intermediate": authority.above[0], "root": authority.root}
        first = pinset.Pin.from_certificate(certificates[place]) if place in certificates else self.backup()
        return {HOST: [first, self.backup()]}

    def path(self, word):
        """A path that no other test asks for."""
        return f"/{word}-{secrets.token_hex(8)}"

    def stock(self, *, trust=(), way=WAYS["asyncio"], **options):
        """A client as it comes, by default an ``httpx.AsyncClient``."""
        return way.stock(verify=self.context(*trust), timeout=PATIENCE, **way.options(options))

    def pinned(self, pins, *, trust=(), identity=None, timeout=PATIENCE, way=WAYS["asyncio"], **options):
        """A pinned one that trusts the same, by default a `pinset.PinnedAsyncClient`."""
        context = self.context(*trust)
        if identity is not None:
            identity.load_into(context)
        return way.pinned(pins, verify=context, timeout=timeout, **way.options(options))

    async def assert_refused(self, pins, origin, **options):
        """A pinned client refuses *origin*, which sees no request; a stock client on the same road gets its 200."""
        refused, taken = self.path("pinned"), self.path("stock")
        async with self.pinned(pins, **options) as client:
            with pytest.raises(pinset.PinMismatchError) as caught:
                await client.get(origin.url(refused))
        async with self.stock(**options) as client:
            response = await client.get(origin.url(taken))
        assert response.status_code == 200
        origin.request(taken)
        assert not origin.has_seen(refused)
        return caught.value


KINDS = ("ec", "rsa")


@pytest.fixture(autouse=True)
def _no_proxies_around(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _key_with_a_slash_first():
    """A key whose pin is ``sha256//…``: one in 64 is, and reads like curl's spelling."""
    while True:
        key = ec.generate_private_key(ec.SECP256R1())
        spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if base64.b64encode(hashlib.sha256(spki).digest()).startswith(b"/"):
            return key


@pytest.fixture(scope="session")
def require_program():
    """See `find_program`."""
    return find_program


@pytest.fixture(scope="session")
def run_program():
    """See `running`."""
    return running


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    program = find_program("nginx")
    directory = tmp_path_factory.mktemp("pinset-nginx")
    made = Lab()
    roots = directory / "clients.pem"
    roots.write_text(made.clients.root_pem)
    identities = {}
    for side, authorities in (("genuine", made.genuine), ("rogue", made.rogue)):
        for kind in KINDS:
            key = _key_with_a_slash_first() if (kind, side) == ("ec", "genuine") else None
            identity = authorities[kind].issue(HOST, "127.0.0.1", key=key)
            identities[kind, side] = identity, identity.write(directory, f"{kind}-{side}")
    keys = [(kind, version, side) for kind in KINDS for version in TLS for side in ("genuine", "rogue")]

    def configure(ports):
        servers = []

        def serve(port, key, *, name, extra=""):
            kind, version, side = key
            identity, files = identities[kind, side]
            servers.append(_nginx_server(directory, name, port, version=version, files=files, extra=extra))
            logs = (Log(directory / f"{name}.{which}.log") for which in ("access", "error"))
            return Origin(identity, version, port, *logs)

        available = iter(ports)
        for key in keys:
            made.origins[key] = serve(next(available), key, name="-".join(key))
        for version in TLS:
            extra = f"ssl_verify_client on; ssl_client_certificate {roots};"
            key = ("ec", version, "genuine")
            made.mutual[version] = serve(next(available), key, name=f"mutual-{version}", extra=extra)
        config = directory / "nginx.conf"
        config.write_text(_nginx_config(directory, servers))
        return [program, "-p", str(directory), "-e", "stderr", "-c", str(config)]

    with running(directory, len(keys) + len(TLS), configure):
        yield made


class Nginx:
    """
    An nginx of a test's own.

    Attributes:
        ports: Where it listens.
        log: A line for each request: path, protocol, "r" for a resumed handshake or ".", and host.
    """

    FORMAT = "$request_uri|$server_protocol|$ssl_session_reused|$host"

    def __init__(self, directory, servers):
        self._program = find_program("nginx")
        self._directory = directory
        self._servers = servers
        self._stack = contextlib.ExitStack()
        self.log = Log(directory / "access.log")

    def __enter__(self):
        needed = len(set(re.findall(r"PORT\d", "".join(self._servers))))
        self.ports, _ = self._stack.enter_context(running(self._directory, needed, self._configure))
        return self

    def __exit__(self, *error):
        self._stack.__exit__(*error)

    def reload(self):
        """Read configuration, certificates and ticket keys again; returns when nobody serves with the old ones."""
        log = Log(self._directory / "error.log")
        since = log.size()
        os.kill(int((self._directory / "nginx.pid").read_text()), signal.SIGHUP)
        log.wait_for(r"worker process \d+ exited with code 0", since)

    def url(self, path="/", number=0, host=HOST):
        """The URL of *path* on one of its ports."""
        return f"https://{host}:{self.ports[number]}{path}"

    def seen(self, path):
        """The protocol and the mark of resumption of every request for *path*."""
        lines = (line.split("|") for line in self.log.text().splitlines())
        return [(protocol, reused) for asked, protocol, reused, _ in lines if asked == path]

    def wait_for(self, path, count=1):
        """`seen`, once it is that long."""
        wait_until(lambda: len(self.seen(path)) >= count, f"{count} requests for {path}")
        return self.seen(path)

    def _configure(self, ports):
        servers = "".join(self._servers)
        for number, port in enumerate(ports):
            servers = servers.replace(f"PORT{number}", f"127.0.0.1:{port}")
        temporary = "".join(
            f"{kind}_temp_path {self._directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = self._directory / "nginx.conf"
        config.write_text(f"""
daemon off;
worker_processes 1;
pid {self._directory}/nginx.pid;
error_log {self._directory}/error.log info;
events {{ worker_connections 2048; }}
http {{
{temporary}
log_format own '{self.FORMAT}';
access_log {self._directory}/access.log own;
{servers}
}}
""")
        return [self._program, "-p", str(self._directory), "-e", "stderr", "-c", str(config)]


@pytest.fixture
def nginx(tmp_path):
    """Make an `Nginx` from ``server`` blocks, which listen on PORT0, PORT1 and so on, for a ``with`` block."""
    return lambda *servers: Nginx(tmp_path, servers)


@pytest.fixture(scope="session")
def own_nginx():
    """Make an `Nginx` of a directory and ``server`` blocks, for many tests."""
    return Nginx


class Relay:
    """
    A TCP relay in threads that keeps what clients send, byte for byte, and can hold back what the server says.
    """

    def __init__(self, target):
        self._target = target
        self._threads = []
        self._captured = []
        self._closing = threading.Event()
        self._held = False

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listeners = [self._listener]
        if _localhost_is_ipv6_too():  # some proxies try the first address of a name, and no other
            self._listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        socket.create_connection(self._listener.getsockname(), timeout=PATIENCE).close()
        for thread in (self._acceptor, *self._threads):
            thread.join(PATIENCE)
        for listener in self._listeners:
            listener.close()

    @property
    def port(self):
        """Where it listens."""
        return self._listener.getsockname()[1]

    @property
    def clients_spoke(self):
        """How many clients have sent anything."""
        return sum(bool(captured) for captured in self._captured)

    def hold(self):
        """Hold back what the server says."""
        self._held = True

    def let_go(self):
        """Pass on what was held back, and all that follows."""
        self._held = False

    def captured(self):
        """What each client sent, once all have hung up."""
        wait_until(lambda: self._threads, "a client of the relay")
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a client did not hang up"
        return [bytes(data) for data in self._captured]

    def _accept(self):
        while True:
            client, _ = select.select(self._listeners, [], [])[0][0].accept()
            if self._closing.is_set():
                client.close()
                return
            captured = bytearray()
            self._captured.append(captured)
            thread = threading.Thread(target=self._carry, args=(client, captured), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _carry(self, client, captured):
        with (
            contextlib.suppress(ConnectionError),
            client,
            socket.create_connection(("127.0.0.1", self._target), timeout=PATIENCE) as server,
        ):
            open_ends = [client, server]
            while client in open_ends and not self._closing.is_set():
                heard = [client] if self._held else open_ends
                for source in select.select(heard, [], [], 0.01 if self._held else 0.1)[0]:
                    data = source.recv(65536)
                    if source is client:
                        captured += data
                    if data:
                        (server if source is client else client).sendall(data)
                    else:
                        open_ends.remove(source)
                        if source is server:
                            client.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay():
    """Make a `Relay` to a port of the loopback interface, for a ``with`` block."""
    return Relay


@pytest.fixture
def tls_records():
    """Cut bytes into TLS records: (content type, body). Fails if they are anything else."""

    def cut(data):
        records = []
        while data:
            kind, major, size = data[0], data[1], int.from_bytes(data[3:5], "big")
            assert kind in (20, 21, 22, 23), f"no TLS record: {data[:20]!r}"
            assert major == 3
            assert len(data) >= 5 + size, "a cut record"
            records.append((kind, data[5 : 5 + size]))
            data = data[5 + size :]
        return records

    return cut


@dataclass(frozen=True)
class ProxyServer:
    """A running proxy: its URL, its log, and for an HTTPS proxy the authority of its own certificate."""

    url: str
    port: int
    log: Log
    authority: Authority | None = None

    def proxy(self):
        """What a client takes as ``proxy``. The leg to an HTTPS proxy trusts the authority of the proxy alone."""
        return httpx.Proxy(self.url, ssl_context=self.authority and self.authority.client_context())

    def wait_for_use(self, port, since):
        """Wait until the log shows a connection to *port* after *since*."""
        self.log.wait_for(rf"(localhost:|127\.0\.0\.1[.:]|::1[.:\]]+){port}\b", since)


@pytest.fixture(scope="session")
def tinyproxy(tmp_path_factory):
    program = find_program("tinyproxy")
    directory = tmp_path_factory.mktemp("pinset-tinyproxy")

    def configure(ports):
        config = directory / "tinyproxy.conf"
        config.write_text(f"Port {ports[0]}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 30\nLogLevel Info\n")
        return [program, "-d", "-c", str(config)]

    with running(directory, 1, configure) as ((port,), log):
        yield ProxyServer(f"http://127.0.0.1:{port}", port, Log(log))


@pytest.fixture(scope="session")
def squid_server():
    program = find_program("squid")
    authority = Authority("Proxy")
    # Squid drops root before it opens its logs, and nobody else may enter the directories that pytest makes.
    with tempfile.TemporaryDirectory(prefix="pinset-squid-") as name:
        directory = Path(name)
        identity = authority.issue(HOST)
        both = directory / "both.pem"
        both.touch(mode=0o600)
        both.write_bytes(identity.chain_pem + identity.key_pem)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody").pw_uid
            directory.chmod(0o755)
            os.chown(directory, nobody, -1)
            os.chown(both, nobody, -1)

        def configure(ports):
            config = directory / "squid.conf"
            config.write_text(f"""
http_port 127.0.0.1:{ports[0]}
https_port 127.0.0.1:{ports[1]} tls-cert={both}
cache_effective_user nobody
http_access allow localhost
http_access deny all
cache deny all
cache_mem 8 MB
pid_filename none
cache_log {directory}/cache.log
access_log stdio:{directory}/access.log
buffered_logs off
shutdown_lifetime 0 seconds
pinger_enable off
visible_hostname localhost
netdb_filename none
coredump_dir none
logfile_rotate 0
""")
            # The service name is the name of its shared memory: two of them must not meet.
            return [program, "-N", "-n", f"pinset{secrets.token_hex(4)}", "-f", str(config)]

        with running(directory, 2, configure) as (ports, _):
            yield ports, Log(directory / "access.log"), authority


@pytest.fixture(scope="session")
def squid(squid_server):
    (port, _), log, _ = squid_server
    return ProxyServer(f"http://127.0.0.1:{port}", port, log)


@pytest.fixture(scope="session")
def squid_https(squid_server):
    (_, port), log, authority = squid_server
    return ProxyServer(f"https://{HOST}:{port}", port, log, authority)


@pytest.fixture(scope="session")
def microsocks(tmp_path_factory):
    program = find_program("microsocks")
    directory = tmp_path_factory.mktemp("pinset-microsocks")
    with running(directory, 1, lambda ports: [program, "-i", "127.0.0.1", "-p", str(ports[0])]) as ((port,), log):
        yield ProxyServer(f"socks5://127.0.0.1:{port}", port, Log(log))


@pytest.fixture(scope="session")
def dante(tmp_path_factory):
    program = find_program("danted")
    directory = tmp_path_factory.mktemp("pinset-dante")
    user = pwd.getpwuid(os.geteuid()).pw_name

    def configure(ports):
        config = directory / "danted.conf"
        config.write_text(f"""
logoutput: stderr
internal: 127.0.0.1 port = {ports[0]}
external: lo
clientmethod: none
socksmethod: none
user.privileged: {user}
user.unprivileged: {user}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0
    log: connect }}
""")
        return [program, "-f", str(config)]

    with running(directory, 1, configure) as ((port,), log):
        yield ProxyServer(f"socks5h://127.0.0.1:{port}", port, Log(log))


@pytest.fixture
def proxy(request):
    """The proxy that the test names by its parameter."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def mitmproxy(tmp_path_factory, lab):
    """The URLs of the interceptor by mode, and its authority."""
    program = find_program("mitmdump", given=os.environ.get("PINSET_MITMDUMP"))
    directory = tmp_path_factory.mktemp("pinset-mitmproxy")
    authority = Authority("Interceptor", key="rsa", intermediate=False)
    settings = directory / "settings"
    settings.mkdir(mode=0o700)
    itself = Identity(authority._root_key, (authority.root,))
    both = settings / "mitmproxy-ca.pem"
    both.touch(mode=0o600)
    both.write_bytes(itself.key_pem + itself.chain_pem)
    upstream = directory / "upstream.pem"
    upstream.write_text(lab.cadata())

    def configure(ports):
        modes = [f"regular@127.0.0.1:{ports[0]}", f"socks5@127.0.0.1:{ports[1]}"]
        options = [f"confdir={settings}", f"ssl_verify_upstream_trusted_ca={upstream}"]
        command = [program]
        for mode in modes:
            command += ["--mode", mode]
        for option in options:
            command += ["--set", option]
        return command

    with running(directory, 2, configure) as (ports, _):
        yield {
            "connect": f"http://127.0.0.1:{ports[0]}",
            "socks5": f"socks5://127.0.0.1:{ports[1]}",
            "authority": authority,
        }
