"""
The four faults of the stock client, behind real proxies and at a real nginx: it fails the steps, and ours does not.
"""

from __future__ import annotations

import anyio
import anyio.lowlevel
import httpx
import pytest
from leftovers import LOOPS, Watch, collector_off, counts, untidy
from scripted import Scripted, wait_for
from stages import ONE, STAGES, assert_clean_at

import pinset
from pinset.testing import Authority

pytestmark = pytest.mark.integration

TIMEOUT = httpx.Timeout(20, pool=0.5)
loops = pytest.mark.parametrize("loop", LOOPS)
tunnels = pytest.mark.parametrize("proxy", ["tinyproxy", "squid", "squid_https"], indirect=True)
socks = pytest.mark.parametrize("proxy", ["microsocks", "dante"], indirect=True)


def stock(context, proxy=None, **options):
    """A stock transport with one place."""
    return httpx.AsyncHTTPTransport(verify=context, proxy=proxy, limits=ONE, **options)


def ours(pins, context, proxy=None, **options):
    """Ours, likewise."""
    return pinset.PinnedAsyncTransport(pins, verify=context, proxy=proxy, limits=ONE, **options)


def silent(peer):
    """A server that reads the ClientHello and says nothing."""
    peer.receive()
    peer.stall()


async def cancel_in_the_handshake(client, server):
    """Send a request to a silent server, and cancel it when the ClientHello has arrived."""
    before = server.stalls
    async with anyio.create_task_group() as group:
        group.start_soon(client.get, server.url())
        await wait_for(lambda: server.stalls > before, "a ClientHello")
        group.cancel_scope.cancel()


@tunnels
@loops
def test_tls_failure_in_a_tunnel_costs_no_place(lab, proxy, loop):
    """After a certificate that cannot be verified, stock waits for ever for its one connection, and ours goes on."""
    good, strange = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))
    trust = lab.genuine["ec"].client_context

    async def steps(transport):
        async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(strange.url(lab.path("strange")))
            return (await client.get(good.url(lab.path("good")))).status_code

    async def run():
        with untidy(), pytest.raises(httpx.PoolTimeout):
            await steps(stock(trust(), proxy.proxy()))
        transport = ours(lab.pins(good), trust(), proxy.proxy())
        assert await steps(transport) == 200
        assert counts(transport) == (0, 0, 0, 0)

    LOOPS[loop](run)


@tunnels
@loops
def test_pin_failure_in_a_tunnel_costs_no_place(lab, proxy, loop):
    """Nor does a refusal by pins, however often it comes."""
    good, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))

    async def run():
        transport = ours(lab.pins(good), lab.context(), proxy.proxy())
        async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT) as client:
            for _ in range(5):
                with pytest.raises(pinset.PinMismatchError):
                    await client.get(rogue.url(lab.path("rogue")))
            assert (await client.get(good.url(lab.path("good")))).status_code == 200

    LOOPS[loop](run)


async def cancel_and_go_on(lab, good, transport):
    with Scripted(silent) as server:
        async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT) as client:
            await cancel_in_the_handshake(client, server)
            response = await client.get(good.url(lab.path("good")))
            await wait_for(lambda: not server.open, "the abandoned connection to be closed")
            return response.status_code


@tunnels
@loops
def test_cancellation_in_a_tunnel_costs_no_place(lab, proxy, loop):
    """After a handshake inside CONNECT that was cancelled, stock waits for ever, and ours goes on."""
    good = lab.origins["ec", "TLSv1.3", "genuine"]

    async def run():
        with untidy(), pytest.raises(httpx.PoolTimeout):
            await cancel_and_go_on(lab, good, stock(lab.context(), proxy.proxy()))
        with collector_off():
            watch = Watch()
            transport = ours(lab.pins(good), lab.context(), proxy.proxy())
            assert await cancel_and_go_on(lab, good, transport) == 200
            assert counts(transport) == (0, 0, 0, 0)
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@socks
@loops
def test_cancellation_in_socks_costs_no_place(lab, proxy, loop):
    """The same over SOCKS."""
    good = lab.origins["ec", "TLSv1.3", "genuine"]

    async def run():
        with untidy(), pytest.raises(httpx.PoolTimeout):
            await cancel_and_go_on(lab, good, stock(lab.context(), proxy.proxy()))
        with collector_off():
            watch = Watch()
            transport = ours(lab.pins(good), lab.context(), proxy.proxy())
            assert await cancel_and_go_on(lab, good, transport) == 200
            assert counts(transport) == (0, 0, 0, 0)
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@socks
@loops
def test_tls_failure_in_socks_costs_no_place(lab, proxy, loop):
    """Neither a strange certificate nor a refusal by pins."""
    good, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))
    stranger = Authority("Stranger")

    async def run():
        for trust, error in (
            (stranger.client_context(lab.genuine["ec"]), httpx.ConnectError),
            (lab.context(), pinset.PinMismatchError),
        ):
            transport = ours(lab.pins(good), trust, proxy.proxy())
            async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT) as client:
                for _ in range(3):
                    with pytest.raises(error):
                        await client.get(rogue.url(lab.path("rogue")))
                assert (await client.get(good.url(lab.path("good")))).status_code == 200

    LOOPS[loop](run)


@loops
def test_sockets_of_cancelled_handshakes_are_closed(lab, loop):
    """Ten cancelled handshakes: stock leaves sockets to the collector, ours leaves none."""
    good = lab.origins["ec", "TLSv1.3", "genuine"]

    async def steps(transport):
        """The sockets that are left when the client is still open."""
        with Scripted(silent) as server:
            watch = Watch(server.port)
            async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT) as client:
                for _ in range(10):
                    await cancel_in_the_handshake(client, server)
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                return watch.leaked()

    async def run_stock():
        return await steps(httpx.AsyncHTTPTransport(verify=lab.context()))

    async def run_ours():
        watch = Watch()
        left = await steps(pinset.PinnedAsyncTransport(lab.pins(good), verify=lab.context()))
        await watch.assert_nothing_left()
        return left

    left = 0
    with pytest.raises(AssertionError, match="left to the collector"):
        with collector_off():
            left = LOOPS[loop](run_stock)
    assert left == 10 or loop == "uvloop"  # uvloop may have closed them, and complains all the same
    with collector_off():
        assert LOOPS[loop](run_ours) == 0


@loops
def test_a_closed_client_completes_nothing(lab, relay, loop):
    """A request whose handshake hangs when the client is closed: stock goes on and answers, ours gives up at once."""
    good = lab.origins["ec", "TLSv1.3", "genuine"]

    async def steps(transport):
        outcome = []
        with relay(good.port) as wire:
            wire.hold()
            client = httpx.AsyncClient(transport=transport, timeout=TIMEOUT)

            async def request():
                try:
                    outcome.append((await client.get(f"https://localhost:{wire.port}/{loop}")).status_code)
                except httpx.HTTPError as error:
                    outcome.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(request)
                await wait_for(lambda: wire.clients_spoke, "a ClientHello")
                await client.aclose()
                before = list(outcome)
                wire.let_go()
            return before, outcome

    async def run():
        with untidy():
            before, outcome = await steps(httpx.AsyncHTTPTransport(verify=lab.context()))
        assert (before, outcome) == ([], [200])
        with collector_off():
            watch = Watch()
            _, (outcome,) = await steps(pinset.PinnedAsyncTransport(lab.pins(good), verify=lab.context()))
            assert isinstance(outcome, httpx.ConnectError)
            assert "closed" in str(outcome)
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@loops
def test_a_closed_client_ends_what_is_under_way(lab, loop):
    """Closing while a body is being read, while a request waits for a place, and while another connects."""
    good = lab.origins["ec", "TLSv1.3", "genuine"]
    identity = good.identity

    def script(peer):
        peer.wrap(context)
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        peer.stall()

    context = identity.server_context()

    async def run():
        errors = []

        async def read(client, url):
            try:
                await client.get(url)
            except (httpx.HTTPError, RuntimeError) as error:
                errors.append(error)

        with collector_off(), Scripted(script) as halfway, Scripted(silent) as mute:
            watch = Watch(halfway.port, mute.port)
            limits = httpx.Limits(max_connections=2)
            transport = pinset.PinnedAsyncTransport(lab.pins(good), verify=lab.context(), limits=limits)
            client = httpx.AsyncClient(transport=transport, timeout=20)
            async with anyio.create_task_group() as group:
                group.start_soon(read, client, halfway.url())
                group.start_soon(read, client, mute.url())
                await wait_for(lambda: halfway.stalls and mute.stalls, "both servers to stall")
                group.start_soon(read, client, halfway.url("/waits"))
                await wait_for(lambda: counts(transport)[0] == 1, "a request that waits")
                await client.aclose()
            assert len(errors) == 3
            assert all(isinstance(error, httpx.HTTPError) for error in errors), errors
            assert counts(transport) == (0, 0, 0, 0)
            await watch.assert_nothing_left()
            await wait_for(lambda: not halfway.open and not mute.open, "the servers to see the end")

    LOOPS[loop](run)


@pytest.mark.parametrize("way", ["asyncio-cancel", "uvloop-scope", "trio-scope", "asyncio-timeout"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("proxy", ["tinyproxy", "microsocks"], indirect=True)
def test_given_up_behind_a_proxy(lab, proxy, stage, way):
    """The origin behind a proxy stalls at every point, and the request is given up."""
    identity = lab.origins["ec", "TLSv1.3", "genuine"].identity
    context = identity.server_context()
    assert_clean_at(
        way,
        lambda peer: STAGES[stage](peer, context, False),
        lambda _: ours(lab.pins(lab.origins["ec", "TLSv1.3", "genuine"]), lab.context(), proxy.proxy()),
        context,
        upload=stage == "upload",
    )


@loops
@pytest.mark.parametrize("proxy", ["tinyproxy", "squid_https", "microsocks"], indirect=True)
def test_a_trace_callback_that_raises_behind_a_proxy(lab, proxy, loop):
    """At whatever step it raises, its error comes out, and nothing is lost at one connection."""
    good = lab.origins["ec", "TLSv1.3", "genuine"]

    class OwnError(Exception):
        pass

    async def run():
        names = []

        async def note(name, info):
            names.append(name)

        async def request(client, trace):
            return await client.get(good.url("/traced"), extensions={"trace": trace})

        def new_client():
            transport = ours(lab.pins(good), lab.context(), proxy.proxy())
            return httpx.AsyncClient(transport=transport, timeout=TIMEOUT)

        watch = Watch()
        async with new_client() as client:
            await request(client, note)
        for bad in dict.fromkeys(names):

            async def fail(name, info, bad=bad):
                if name == bad:
                    raise OwnError(name)

            async with new_client() as client:
                with pytest.raises(OwnError):
                    await request(client, fail)
                queued, active, _, connecting = counts(client._transport)
                assert (queued, active, connecting) == (0, 0, 0), bad
                assert (await request(client, note)).status_code == 200
        await watch.assert_nothing_left()

    with collector_off():
        LOOPS[loop](run)
