"""
The interceptor sees what clients do with an impostor, on every road and at every stage.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing, contextmanager, suppress

import httpx
import pytest
from peers import echo, peer

from pinset import InputError, Pin, PinMismatchError, PinnedAsyncClient
from pinset.testing import Authority, HTTPSServer, Interceptor, Reaction

HOST = "localhost"


@pytest.fixture(scope="module")
def server(genuine):
    with HTTPSServer(authority=genuine, http2=True) as running:
        yield running


@pytest.fixture
def interceptor(rogue, genuine):
    with Interceptor(rogue, upstream=genuine.client_context(), patience=5) as running:
        yield running


@pytest.fixture
def trust(genuine, rogue):
    return genuine.client_context(rogue)


def tunnel(interceptor, host=HOST, port=443):
    """A connection through the proxy, before anything was said in it."""
    plain = socket.create_connection(("127.0.0.1", interceptor.port), timeout=10)
    plain.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
    assert plain.recv(4096).startswith(b"HTTP/1.1 200 ")
    return plain


def only(interceptor):
    """The one contact, once it is over."""
    [contact] = interceptor.settle(until_closed=True)
    return contact


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("road", ["url", "socks_url"])
@pytest.mark.asyncio
async def test_who_has_no_pins_is_read(interceptor, server, trust, road, http2):
    """A client that trusts the authority gets the server's answer, and its request was read; counted and kept."""
    async with httpx.AsyncClient(
        verify=trust, proxy=getattr(interceptor, road).replace("5h", "5"), http2=http2
    ) as client:
        response = await client.get(server.url(path="/secret"))
    assert response.text.startswith("hello from GET /secret")
    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    contact = only(interceptor)
    assert (contact.host, contact.port, contact.reaction) == (HOST, server.port, Reaction.ACCEPTED)
    assert contact.sent == len(interceptor.intercepted[HOST]) > 30
    interceptor.assert_accepted(HOST)
    with pytest.raises(AssertionError, match=r"expected that the impostor is refused, and saw accepted\n  localhost:"):
        interceptor.assert_refused(HOST)


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("road", ["url", "socks_url"])
@pytest.mark.asyncio
async def test_who_has_pins_refuses(interceptor, server, trust, road, http2):
    """The pinned client breaks off, and nothing is read."""
    seen = len(server.seen.requests)
    proxy = getattr(interceptor, road)
    async with PinnedAsyncClient(server.pins, verify=trust, proxy=proxy, http2=http2) as client:
        with pytest.raises(PinMismatchError) as caught:
            await client.get(server.url())
    interceptor.assert_refused(HOST, knows_authority=True)
    contact = only(interceptor)
    assert contact.sent == 0
    assert str(contact.shown) == str(Pin.from_certificate(caught.value.verdict.chain[0].der))
    assert interceptor.refused == {HOST: 1}
    assert interceptor.intercepted == {}
    assert len(server.seen.requests) == seen
    with pytest.raises(AssertionError, match="expected that the impostor is accepted, and saw left"):
        interceptor.assert_accepted(HOST)


@pytest.mark.asyncio
async def test_control(interceptor, server, trust):
    """Who leaves has shown nothing, unless it accepts the same host without pins in a control."""

    async def fetch(verify, pins=None):
        made = PinnedAsyncClient(pins, **verify) if pins else httpx.AsyncClient(**verify)
        async with made as one:
            return await one.get(server.url())

    options = {"verify": trust, "proxy": interceptor.url}
    with pytest.raises(PinMismatchError):
        await fetch(options, server.pins)
    with pytest.raises(AssertionError, match=r"saw left\n(.*\n)+  So do clients that do not know the authority"):
        interceptor.assert_refused(HOST)
    with interceptor.control():
        assert (await fetch(options)).status_code == 200
    interceptor.assert_refused(HOST)
    assert [contact.is_control for contact in interceptor.contacts] == [False, True]


@pytest.mark.asyncio
async def test_clients_that_hang_up_without_a_word(interceptor, server, genuine):
    """httpx on asyncio that does not know the authority looks to the server like a client with pins: no proof."""
    async with httpx.AsyncClient(verify=genuine.client_context(), proxy=interceptor.url) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(server.url())
    assert interceptor.reaction(HOST) is Reaction.LEFT
    with pytest.raises(AssertionError, match="saw left"):
        interceptor.assert_refused(HOST)


def test_nobody_came(interceptor):
    """A host that was never tried was not refused."""
    assert interceptor.reaction(HOST) is None
    with pytest.raises(AssertionError, match="saw nobody come"):
        interceptor.assert_refused(HOST)


def test_who_does_not_know_the_authority_proves_nothing(interceptor, genuine):
    """The alert "unknown ca" is not taken for pins."""
    with tunnel(interceptor) as plain, pytest.raises(ssl.SSLCertVerificationError):
        genuine.client_context().wrap_socket(plain, server_hostname=HOST)
    contact = only(interceptor)
    assert contact.reaction is Reaction.UNTRUSTED
    with pytest.raises(AssertionError, match="saw untrusted"):
        interceptor.assert_refused(HOST)


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_pins_that_are_checked_after_the_handshake(interceptor, trust, tls):
    """curl, aiohttp and urllib3 look at the certificate when the handshake is over, and hang up."""
    trust.minimum_version = trust.maximum_version = tls
    with tunnel(interceptor) as plain:
        trust.wrap_socket(plain, server_hostname=HOST).close()
    contact = only(interceptor)
    assert (contact.reaction, contact.detail) == (
        Reaction.LEFT,
        "it hung up after the handshake, before it sent anything",
    )


def test_break_off_by_reset(interceptor, trust):
    """A client that resets the connection right after the handshake has left as well."""
    with tunnel(interceptor) as plain:
        tls = trust.wrap_socket(plain, server_hostname=HOST)
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        tls.close()
    assert only(interceptor).reaction is Reaction.LEFT


def client_hello(host=HOST, context=None):
    """A ClientHello, and the TLS object that goes on from there."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = (context or ssl.create_default_context()).wrap_bio(incoming, outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        made.do_handshake()
    return outgoing.read(), incoming, outgoing, made


def test_break_off_in_the_handshake(interceptor):
    """A client that was shown the certificate and hangs up without a word has left, for whatever reason."""
    with tunnel(interceptor) as plain:
        plain.sendall(client_hello()[0])
        plain.recv(65536)
    contact = only(interceptor)
    assert (contact.reaction, contact.detail) == (
        Reaction.LEFT,
        "it hung up in the handshake, without an alert",
    )


@pytest.mark.parametrize(
    ("alert", "reaction"),
    [
        (42, Reaction.LEFT),
        (46, Reaction.LEFT),
        (40, Reaction.LEFT),
        (80, Reaction.LEFT),
        (48, Reaction.UNTRUSTED),
        (70, Reaction.UNFINISHED),
        (45, Reaction.UNFINISHED),
    ],
)
def test_alerts(interceptor, alert, reaction):
    """Of the alerts about a certificate one is clear, unknown CA; those about versions and the like say nothing."""
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where alerts in the handshake are in the clear
    with tunnel(interceptor) as plain:
        plain.sendall(client_hello(context=context)[0])
        plain.recv(65536)
        plain.sendall(bytes([21, 3, 3, 0, 2, 2, alert]))
        plain.recv(65536)
    contact = only(interceptor)
    assert contact.reaction is reaction
    assert contact.detail.startswith("it sent the alert: ")


def test_what_ends_before_the_certificate_proves_nothing(interceptor):
    """Hanging up at once, at the first byte, or with a TLS that the impostor does not speak."""
    tunnel(interceptor).close()
    with tunnel(interceptor) as plain:
        plain.sendall(b"\x16")
    with tunnel(interceptor) as plain:
        plain.sendall(b"\x16\x03\x01\x00\x05nope!")
        plain.recv(4096)
    contacts = interceptor.settle(until_closed=True)
    assert [contact.reaction for contact in contacts] == [Reaction.UNFINISHED] * 3


def test_who_says_nothing(rogue, trust):
    """Silence before the handshake proves nothing; silence after it, with the line kept, is acceptance."""
    with Interceptor(rogue, patience=0.2) as interceptor:
        with tunnel(interceptor, "silent.test"), tunnel(interceptor, "half.test") as half:
            half.sendall(client_hello()[0])
            with tunnel(interceptor) as plain, trust.wrap_socket(plain, server_hostname=HOST):
                contacts = {contact.host: contact for contact in interceptor.settle()}
    assert contacts["silent.test"].reaction is Reaction.UNFINISHED
    assert contacts[HOST].reaction is Reaction.ACCEPTED
    assert contacts[HOST].detail == "it kept the connection for 0.2 s and sent nothing"


def test_server_that_speaks_first(interceptor, genuine, leaf, trust):
    """A greeting of the genuine server goes through before the client has said a word."""

    def greet(connection):
        with leaf.server_context().wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"220 ready\r\n")
            echo(tls)

    with peer(greet) as origin, tunnel(interceptor, port=origin.port) as plain:
        with trust.wrap_socket(plain, server_hostname=HOST) as tls:
            assert tls.recv(100) == b"220 ready\r\n"
            tls.sendall(b"HELO")
            assert tls.recv(100) == b"HELO"
    assert only(interceptor).sent == 4


def test_without_tls(interceptor):
    """What is sent in the clear is read by all the world, and told so."""
    with peer(echo) as origin, tunnel(interceptor, "127.0.0.1", origin.port) as plain:
        plain.sendall(b"password")
        assert plain.recv(100) == b"password"
    contact = only(interceptor)
    assert (contact.reaction, contact.sent, contact.host) == (Reaction.CLEARTEXT, 8, "127.0.0.1")
    assert interceptor.intercepted == {"127.0.0.1": b"password"}


def test_the_worst_counts(interceptor, trust):
    """A program that refuses, and then tries without pins, has accepted."""
    with tunnel(interceptor) as plain:
        trust.wrap_socket(plain, server_hostname=HOST).close()
    interceptor.assert_refused(HOST, knows_authority=True)
    with tunnel(interceptor) as plain, trust.wrap_socket(plain, server_hostname=HOST) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        interceptor.assert_accepted(HOST)
    assert len(interceptor.contacts) == 2


def test_genuine_server_out_of_reach(interceptor, trust):
    """The client is deceived all the same, and the contact says what was wrong."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with tunnel(interceptor, port=port) as plain, trust.wrap_socket(plain, server_hostname=HOST) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert tls.recv(100) == b""
    contact = only(interceptor)
    assert contact.reaction is Reaction.ACCEPTED
    assert f"localhost:{port} was not reached" in contact.detail


def test_genuine_server_is_verified(interceptor, trust):
    """The interceptor passes nothing on to a server that it does not trust itself."""
    with HTTPSServer(authority=Authority("Stranger")) as stranger:
        with tunnel(interceptor, port=stranger.port) as plain, trust.wrap_socket(plain, server_hostname=HOST) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert tls.recv(100) == b""
    assert stranger.seen.application_data == b""
    assert "certificate verify failed" in only(interceptor).detail


@pytest.mark.asyncio
async def test_nothing_is_passed_on_without_an_upstream(rogue, server, trust):
    """For hosts that are not there: the impostor alone is enough to see pins refuse and stock accept."""
    seen = server.seen.connections
    with Interceptor(rogue) as interceptor:
        async with httpx.AsyncClient(verify=trust, proxy=interceptor.url) as stock:
            with pytest.raises(httpx.RemoteProtocolError):
                await stock.get("https://api.example.com/")
        async with PinnedAsyncClient(
            {"other.example.com": server.pins["localhost"]}, verify=trust, proxy=interceptor.url
        ) as client:
            with pytest.raises(PinMismatchError):
                await client.get("https://other.example.com/")
        interceptor.assert_accepted("api.example.com")
        interceptor.assert_refused("other.example.com", knows_authority=True)
    assert server.seen.connections == seen


def test_server_name_counts(interceptor, server, trust):
    """A client that asks the proxy for an address and TLS for a name is deceived about the name."""
    with tunnel(interceptor, "127.0.0.1", server.port) as plain:
        with trust.wrap_socket(plain, server_hostname=HOST) as tls:
            tls.sendall(b"GET /by-address HTTP/1.1\r\n\r\n")
            assert b"hello" in tls.recv(4096)
    assert (only(interceptor).host, only(interceptor).port) == (HOST, server.port)
    with tunnel(interceptor, "127.0.0.1", server.port) as plain:  # and without a server name, about the address
        trust.wrap_socket(plain, server_hostname="127.0.0.1").close()
    assert interceptor.reaction("127.0.0.1") is Reaction.LEFT


def test_long_names(interceptor, trust):
    """A name longer than a common name may be is impersonated all the same."""
    name = f"{'x' * 60}.{'y' * 60}.test"
    with tunnel(interceptor, name) as plain:
        trust.wrap_socket(plain, server_hostname=name).close()
    interceptor.assert_refused(name, knows_authority=True)


@pytest.mark.parametrize("shows", [True, False])
def test_client_certificates(rogue, trust, shows):
    """The interceptor can ask for a client certificate, and see whether it gets one."""
    clients = Authority("Clients", intermediate=False)
    own = clients.issue("me", client=True)
    if shows:
        own.load_into(trust)
    with Interceptor(rogue, clients=clients) as interceptor:
        with tunnel(interceptor) as plain, trust.wrap_socket(plain, server_hostname=HOST) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
            interceptor.assert_accepted(HOST)
    assert interceptor.client_certificates == ([own.chain[0]] if shows else [])


@pytest.mark.asyncio
async def test_nothing_is_kept_unless_asked(rogue, genuine, server, trust):
    """Sizes are counted; contents are gone."""
    with Interceptor(rogue, upstream=genuine.client_context(), keep=False) as interceptor:
        async with httpx.AsyncClient(verify=trust, proxy=interceptor.url) as client:
            await client.get(server.url())
        assert only(interceptor).sent > 30
    assert interceptor.intercepted == {}


@pytest.mark.asyncio
async def test_contacts_are_told(rogue, server, trust):
    """Whoever listens hears each contact once, when it is decided."""
    told, event = [], threading.Event()
    with Interceptor(rogue, on_contact=lambda contact: (told.append(contact), event.set())) as interceptor:
        with tunnel(interceptor) as plain:
            trust.wrap_socket(plain, server_hostname=HOST).close()
        assert event.wait(10)
    assert [contact.reaction for contact in told] == [Reaction.LEFT]


def test_where_the_genuine_servers_are(rogue, genuine, server, trust):
    """All names can be sent to one place."""
    upstream = genuine.client_context()
    with Interceptor(rogue, upstream=upstream, connect_to=("127.0.0.1", server.port)) as interceptor:
        with tunnel(interceptor, HOST, 1) as plain, trust.wrap_socket(plain, server_hostname=HOST) as tls:
            tls.sendall(b"GET /moved HTTP/1.1\r\n\r\n")
            assert b"hello from GET /moved" in tls.recv(4096)


class TestGreeting:
    """What a proxy is asked, rightly and wrongly."""

    @staticmethod
    def ask(interceptor, data):
        """All that is answered to *data*."""
        with socket.create_connection(("127.0.0.1", interceptor.port), timeout=10) as plain:
            plain.sendall(data)
            plain.shutdown(socket.SHUT_WR)
            answer = b""
            while received := plain.recv(4096):
                answer += received
        return answer

    def test_certificate_of_the_authority(self, interceptor, rogue):
        """A phone loads it from the proxy itself."""
        assert httpx.get(f"{interceptor.url}/ca.pem", trust_env=False).text == rogue.root_pem

    @pytest.mark.parametrize(
        ("request_line", "status"),
        [
            (b"GET / HTTP/1.1", b"405"),
            (b"GET http://localhost/ HTTP/1.1", b"405"),
            (b"CONNECT", b"405"),
            (b"CONNECT localhost HTTP/1.1", b"400"),
            (b"CONNECT local host:443 HTTP/1.1", b"400"),
            (b"CONNECT a..b:443 HTTP/1.1", b"400"),
        ],
    )
    def test_http(self, interceptor, request_line, status):
        """What is no CONNECT to a host and a port is told so, and is no contact."""
        assert self.ask(interceptor, request_line + b"\r\n\r\n").startswith(b"HTTP/1.1 " + status)
        assert interceptor.settle() == ()

    @pytest.mark.parametrize("data", [b"", b"C", b"CONNECT x", b"\5", b"\5\1\0\5\1\0\3", b"x" * 70_000])
    def test_half_of_it(self, interceptor, data):
        """Who does not finish is hung up on."""
        with suppress(ConnectionError):
            assert not self.ask(interceptor, data).startswith(b"HTTP/1.1 200")
        assert interceptor.settle() == ()

    @pytest.mark.parametrize(
        ("data", "answer"),
        [
            (b"\5\1\2", b"\5\xff"),
            (b"\5\1\0\5\2\0\1\x7f\0\0\1\0\x50", b"\5\0\5\7"),
            (b"\5\1\0\5\1\0\x09", b"\5\0\5\10"),
            (b"\5\1\0\5\1\0\3\4a..b\0\x50", b"\5\0\5\10"),
        ],
        ids=["authentication", "bind", "unheard-of address", "no host"],
    )
    def test_socks_refusals(self, interceptor, data, answer):
        """RFC 1928 has a word for each."""
        assert self.ask(interceptor, data).startswith(answer)
        assert interceptor.settle() == ()

    @pytest.mark.parametrize(
        ("address", "host"), [(b"\1\x7f\0\0\1", "127.0.0.1"), (b"\4" + bytes(15) + b"\1", "::1")], ids=["IPv4", "IPv6"]
    )
    def test_socks_addresses(self, interceptor, address, host):
        """Addresses are taken as they are."""
        assert self.ask(interceptor, b"\5\1\0\5\1\0" + address + b"\0\x50").startswith(b"\5\0\5\0")
        assert only(interceptor).host == host


@contextmanager
def _ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            yield
    except OSError:
        pytest.skip("no IPv6 here")


class TestListening:
    """Where it can be reached."""

    def test_ipv6(self, rogue, trust):
        """The loopback address of IPv6 is one, too."""
        with _ipv6(), Interceptor(rogue, address=("::1", 0)) as interceptor:
            assert interceptor.url == f"http://[::1]:{interceptor.port}"
            assert httpx.get(f"{interceptor.url}/ca.pem", trust_env=False).status_code == 200

    @pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
    def test_elsewhere_only_when_allowed(self, rogue, address):
        """Others may come only when somebody said so."""
        with pytest.raises(InputError, match="allow_remote"):
            Interceptor(rogue, address=(address, 0))
        Interceptor(rogue, address=(address, 0), allow_remote=True)

    def test_names_are_none(self, rogue):
        """Names may resolve to anything; localhost is what it says."""
        with pytest.raises(InputError, match="no IP address"):
            Interceptor(rogue, address=("example.com", 0))
        with Interceptor(rogue, address=("localhost", 0)) as interceptor:
            assert interceptor.url.startswith("http://127.0.0.1:")

    def test_nothing_stays(self, rogue, trust):
        """At the end connections are cut and threads have ended, however busy they were."""
        before = threading.active_count()
        with Interceptor(rogue, patience=30) as interceptor:
            idle, plain = tunnel(interceptor), tunnel(interceptor)
            tls = trust.wrap_socket(plain, server_hostname=HOST)
        assert threading.active_count() == before
        with idle, tls, suppress(ConnectionError, ssl.SSLError):
            assert idle.recv(10) == b""
            assert tls.recv(10) == b""


@pytest.mark.asyncio
async def test_what_the_genuine_server_does_not_speak(interceptor, genuine, trust):
    """A client that would rather speak HTTP/2 gets HTTP/1.1, when that is all the genuine server has."""
    with HTTPSServer(authority=genuine) as old:
        async with httpx.AsyncClient(verify=trust, proxy=interceptor.url, http2=True) as client:
            response = await client.get(old.url())
    assert (response.status_code, response.http_version) == (200, "HTTP/1.1")


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_is_shown_every_time(interceptor, server, trust, tls):
    """No session is resumed: a client that has looked away once has to look again."""
    trust.minimum_version = trust.maximum_version = tls
    session = None
    for _ in range(2):
        with tunnel(interceptor, port=server.port) as plain:
            with trust.wrap_socket(plain, server_hostname=HOST, session=session) as tls_socket:
                tls_socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert tls_socket.recv(4096).startswith(b"HTTP/1.1 200")
                assert not tls_socket.session_reused
                session = tls_socket.session
                assert not session.has_ticket
