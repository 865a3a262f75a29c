"""
What httpx documents of its clients, asked of the stock client and of the pinned one: the answers are the same.

Each case is a function of a client; it is run with the stock client first, whose outcome is the expectation.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.cookiejar
import socket
from dataclasses import dataclass

import httpx
import httpx2
import pytest
from asgi import serving
from leftovers import LOOPS, Watch, collector_off

import pinset.httpx
import pinset.httpx2

pytestmark = pytest.mark.integration

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Side:
    """How a case is run: in an event loop or a thread, with httpx or httpx2."""

    library: object
    module: object
    blocking: bool
    http2: bool
    run: object

    def make(self, pinned, trust, *args, **options):
        """A client, the pinned or the stock one."""
        prefix = "" if self.blocking else "Async"
        options = {"timeout": 20, "http2": self.http2, "verify": trust} | options
        if pinned:
            return Awaited(getattr(self.module, f"Pinned{prefix}Client")(*args, **options))
        return Awaited(getattr(self.library, f"{prefix}Client")(**options))

    def hook(self, function):
        """An event hook."""
        if self.blocking:
            return function

        async def hook(event):
            function(event)

        return hook

    def body(self, parts):
        """A body that can be read once."""
        if self.blocking:
            return iter(parts)

        async def generate():
            for part in parts:
                yield part

        return generate()


class Awaited:
    """A client, blocking or not, that is awaited."""

    def __init__(self, client):
        self.client = client

    async def __aenter__(self):
        if hasattr(self.client, "__aenter__"):
            await self.client.__aenter__()
        else:
            self.client.__enter__()
        return self

    async def __aexit__(self, *exc_info):
        if hasattr(self.client, "__aexit__"):
            await self.client.__aexit__(*exc_info)
        else:
            self.client.__exit__(*exc_info)

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            result = getattr(self.client, name)(*args, **kwargs)
            return await result if hasattr(result, "__await__") else result

        return call

    @contextlib.asynccontextmanager
    async def stream(self, *args, **kwargs):
        manager = self.client.stream(*args, **kwargs)
        if hasattr(manager, "__aenter__"):
            async with manager as response:
                yield response
        else:
            with manager as response:
                yield response


async def parts_of(response, name, *args):
    """The parts of a streamed response, as they come."""
    if hasattr(response.stream, "__aiter__"):
        async for part in getattr(response, f"a{name}")(*args):
            yield part
    else:
        for part in getattr(response, name)(*args):
            yield part


SIDES = {
    f"{library.__name__}-{loop}-{'h2' if http2 else 'h1'}": Side(
        library, module, loop == "threads", http2, LOOPS["asyncio" if loop == "threads" else loop]
    )
    for library, module in ((httpx, pinset.httpx), (httpx2, pinset.httpx2))
    for loop in ("asyncio", "trio", "threads")
    for http2 in (False, True)
}


@pytest.fixture(scope="module")
def server(lab, tmp_path_factory):
    """hypercorn with `echo_app`, HTTP/1.1 and HTTP/2."""
    directory = tmp_path_factory.mktemp("echo")
    with serving("echo_app:app", directory, lab.origins["ec", "TLSv1.3", "genuine"].identity) as port:
        yield f"https://localhost:{port}"


CASES = {}


def case(function):
    """One thing that httpx documents."""
    CASES[function.__name__] = function
    return function


def told(response):
    """What the echo says, without what differs by itself."""
    answer = response.json()
    answer["headers"] = sorted([name, value] for name, value in answer["headers"] if name != "user-agent")
    return answer


@case
async def methods(side, server, make):
    """Every method, with and without a body."""
    async with make() as client:
        found = [told(await getattr(client, method)(f"{server}/echo")) for method in ("get", "delete", "options")]
        found += [told(await getattr(client, method)(f"{server}/echo", content=b"1")) for method in ("post", "put")]
        head = await client.head(f"{server}/echo")
        return [*found, head.status_code, head.content, told(await client.request("PURGE", f"{server}/echo"))]


@case
async def bodies(side, server, make):
    """JSON, forms, files, bytes, text, a generator; parameters and headers."""
    async with make(headers={"x-client": "1"}, params={"a": "1"}) as client:
        url = f"{server}/echo"
        return [
            told(await client.post(url, json={"a": [1, 2]})),
            told(await client.post(url, data={"a": "1", "b": ["2", "3"]})),
            told(
                await client.post(
                    url, files={"f": ("n", b"content")}, headers={"content-type": "multipart/form-data; boundary=b"}
                )
            ),
            told(await client.post(url, content="text", headers={"x-request": "2"}, params={"b": "2"})),
            told(await client.post(url, content=side.body([b"a", b"b"]))),
        ]


@case
async def base_url_and_encoding(side, server, make):
    """``base_url``, ``default_encoding``."""
    async with make(base_url=server, default_encoding="latin-1") as client:
        return [(await client.get("/latin")).text, (await client.get("echo")).json()["version"]]


@case
async def redirects(side, server, make):
    """Not followed unless asked; methods change as browsers change them; too many are an error; credentials stay."""
    url = f"{server}/redirect?status={{}}&to={server}/echo"
    async with make(max_redirects=3) as client:
        found = [(await client.get(url.format(302))).status_code]
        for status in (301, 302, 303, 307, 308):
            response = await client.post(url.format(status), content=b"body", follow_redirects=True)
            found.append([len(response.history), told(response)["method"], told(response)["size"]])
        try:
            await client.get(f"{server}/redirect?status=302&to=/redirect?status=302", follow_redirects=True)
        except Exception as error:  # noqa: BLE001 - the class is compared
            found.append(type(error).__name__)
        response = await client.get(url.format(302), auth=("user", "pass"))
        found.append(response.next_request.headers.get("authorization"))
        return found


@case
async def authentication(side, server, make):
    """Basic, digest, a flow of one's own, and refreshing."""

    class Token(side.library.Auth):
        requires_response_body = True

        def auth_flow(self, request):
            response = yield request
            if response.status_code == 401:
                request.headers["authorization"] = "Basic dXNlcjpwYXNz"
                yield request

    async with make(auth=("user", "pass")) as client:
        found = [
            (await client.get(f"{server}/basic")).status_code,
            (await client.get(f"{server}/basic", auth=None)).status_code,
        ]
        digest = await client.get(f"{server}/digest", auth=side.library.DigestAuth("user", "pass"))
        own = await client.post(f"{server}/basic", auth=Token(), content=b"again")
        return [*found, digest.status_code, len(digest.history), own.status_code]


@case
async def cookies(side, server, make):
    """Sent, kept, and from a jar."""
    async with make(cookies={"a": "1"}) as client:
        await client.get(f"{server}/cookie")
        echo = (await client.get(f"{server}/echo")).json()
        return sorted(value for name, value in echo["headers"] if name == "cookie"), sorted(
            client.client.cookies.items()
        )


@case
async def cookie_jar(side, server, make):
    """``cookies`` may be a jar of the standard library."""
    jar = http.cookiejar.CookieJar()
    async with make(cookies=jar) as client:
        await client.get(f"{server}/cookie")
    return [cookie.name for cookie in client.client.cookies.jar]


@case
async def event_hooks(side, server, make):
    """Before sending and after the head of the response; an error of a hook ends the request and frees its place."""
    seen = []

    def raises(_):
        raise LookupError

    hooks = {
        "request": [side.hook(lambda request: seen.append(request.method))],
        "response": [side.hook(lambda response: seen.append(response.status_code))],
    }
    async with make(event_hooks=hooks, limits=side.library.Limits(max_connections=1)) as client:
        await client.get(f"{server}/echo")
        client.client.event_hooks = {"response": [side.hook(raises)]}
        for _ in range(3):
            with pytest.raises(LookupError):
                await client.get(f"{server}/echo")
        client.client.event_hooks = {}
        seen.append((await client.get(f"{server}/echo")).status_code)
    return seen


@case
async def timeouts(side, server, make):
    """Connecting, reading, writing, waiting for a place."""
    found = []
    limits = side.library.Limits(max_connections=1)
    async with make(limits=limits) as client:
        found.append((await client.get(f"{server}/echo", timeout=None)).status_code)
        with socket.create_server(("localhost", 0)) as silent:
            for options in ({"timeout": 0.1}, {"timeout": side.library.Timeout(5, connect=0.1)}):
                try:
                    await client.get(f"https://localhost:{silent.getsockname()[1]}/", **options)
                except Exception as error:  # noqa: BLE001 - the class is compared
                    found.append(type(error).__name__)
        if not side.http2:
            async with client.stream("GET", f"{server}/download?parts=100"):
                try:
                    await client.get(f"{server}/echo", timeout=side.library.Timeout(5, pool=0.1))
                except Exception as error:  # noqa: BLE001 - likewise
                    found.append(type(error).__name__)
        try:
            await client.get(f"{server}/slow?seconds=5", timeout=side.library.Timeout(5, read=0.1))
        except Exception as error:  # noqa: BLE001 - likewise
            found.append(type(error).__name__)
    return found


@case
async def streaming(side, server, make):
    """Bytes, text, lines, raw; a response that is left before its end."""
    async with make(limits=side.library.Limits(max_connections=2)) as client:
        found = []
        for name, args in (("iter_bytes", (1_000,)), ("iter_raw", ()), ("iter_text", ()), ("iter_lines", ())):
            async with client.stream("GET", f"{server}/download?parts=2") as response:
                found.append(sum([len(part) async for part in parts_of(response, name, *args)]))
        for _ in range(0 if side.http2 else 5):  # over HTTP/2, stock clients hang after that now and then
            async with client.stream("GET", f"{server}/download?parts=50"):
                pass
        async with client.stream("GET", f"{server}/download?parts=1") as response:
            with pytest.raises(side.library.ResponseNotRead):
                _ = response.content
        found.append((await client.get(f"{server}/echo")).status_code)
        return found


@case
async def large_bodies(side, server, make):
    """Sixteen megabytes each way, whole."""
    async with make() as client:
        body = [b"y" * 100_000] * 160
        echo = (await client.post(f"{server}/echo", content=side.body(body))).json()
        assert echo["sha256"] == hashlib.sha256(b"".join(body)).hexdigest()
        async with client.stream("GET", f"{server}/download?parts=256") as response:
            received = sum([len(part) async for part in parts_of(response, "iter_raw")])
        return [echo["size"], received]


@case
async def send_and_build(side, server, make):
    """``build_request`` and ``send``, streamed or not; a closed client says so."""
    async with make() as client:
        request = client.client.build_request("POST", f"{server}/echo", content=b"abc")
        found = [told(await client.send(request))]
        response = await client.send(client.client.build_request("GET", f"{server}/download?parts=3"), stream=True)
        found.append(sum([len(part) async for part in parts_of(response, "iter_raw")]))
        await (response.aclose() if not side.blocking else Awaited(response).close())
    with pytest.raises(RuntimeError, match="closed"):
        await client.get(f"{server}/echo")
    return [*found, client.client.is_closed]


@case
async def extensions(side, server, make):
    """``http_version``, ``reason_phrase``, ``network_stream`` and ``trace``."""
    seen = set()

    def trace(name, _):
        seen.add(name)

    async def async_trace(name, info):
        trace(name, info)

    async with make() as client:
        response = await client.get(f"{server}/echo", extensions={"trace": trace if side.blocking else async_trace})
        stream = response.extensions["network_stream"]
        address = stream.get_extra_info("server_addr")
        return [
            response.http_version,
            sorted(seen - {"connection.connect_tcp.started", "connection.connect_tcp.complete"}),
            address[1] == response.url.port,
            stream.get_extra_info("ssl_object").version(),
        ]


@case
async def no_connection(side, server, make):
    """A port where nobody listens, a name that does not exist, a scheme that is none."""
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
    found = []
    async with make() as client:
        for url in (f"https://localhost:{port}/", "ftp://localhost/", "https:///"):
            try:
                await client.get(url)
            except Exception as error:  # noqa: BLE001 - the class is compared
                found.append(
                    [base.__name__ for base in type(error).__mro__ if base.__module__ == side.library.__name__]
                )
    return found


@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("name", CASES)
def test_same_as_stock(lab, server, side, name) -> None:
    """The pinned client does what the stock one does, and leaves nothing behind."""
    pins = lab.pins(lab.origins["ec", "TLSv1.3", "genuine"])

    async def run(pinned):
        args = (pins,) if pinned else ()
        return await CASES[name](side, server, lambda **options: side.make(pinned, lab.context(), *args, **options))

    async def run_ours():
        watch = Watch()
        outcome = await run(pinned=True)
        await watch.assert_nothing_left()
        return outcome

    expected = side.run(run, False)
    with collector_off():
        assert side.run(run_ours) == expected
