"""
``pinset intercept --listen`` as the proxy of a browser.
"""

from __future__ import annotations

import re
import select
import signal
import socket
import ssl
import subprocess
import sys

import httpx
import pytest

from pinset import Pin

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(lab, tmp_path):
    """A running ``pinset intercept --listen``, and the URL of its proxy."""
    roots = tmp_path / "roots.pem"
    roots.write_text(lab.cadata())
    code = "from pinset.cli import main; main()"
    command = [sys.executable, "-c", code, "intercept", "--listen", "127.0.0.1", "--ca-file", str(roots)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert select.select([process.stderr], [], [], 30)[0]
            yield process, process.stderr.readline().split()[1].rstrip(",")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def _summary(process):
    """What it says when it is stopped: the status, the table and the words."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def _impostors_key(proxy, port):
    """The digest of the impostor's key, which stays the same as long as the interceptor runs."""
    port_of_proxy = int(proxy.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port_of_proxy), timeout=20) as plain:
        plain.sendall(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n".encode())
        plain.recv(4096)
        trust = ssl.create_default_context(cadata=httpx.get(f"{proxy}/ca.pem", trust_env=False).text)
        with trust.wrap_socket(plain, server_hostname="localhost") as tls:
            pin = Pin.from_certificate(tls.getpeercert(binary_form=True))
    return str(pin).removeprefix("sha256/")


def _browse(program, tmp_path, proxy, url, *options):
    """What headless Chromium shows of *url* behind *proxy*."""
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    command += ["--disable-background-networking", "--no-first-run", f"--proxy-server={proxy}"]
    command += ["--proxy-bypass-list=<-loopback>", *options, "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path).stdout


def test_browser_that_trusts_the_authority(require_program, proxy, lab, tmp_path):
    """It shows the page, and is found to have accepted."""
    program = require_program("chromium")
    origin, path = lab.origins["ec", "TLSv1.3", "genuine"], lab.path("browser")
    process, url = proxy
    trust = f"--ignore-certificate-errors-spki-list={_impostors_key(url, origin.port)}"
    assert "hello" in _browse(program, tmp_path, url, origin.url(path), trust)
    origin.request(path)
    status, out, _ = _summary(process)
    assert status == 1
    assert re.search(rf"(?m)^localhost:{origin.port} +ACCEPTED IT ", out), out


def test_browser_that_does_not_know_the_authority(require_program, proxy, lab, tmp_path):
    """It has no pins for the host, leaves all the same, and is not praised for it."""
    program = require_program("chromium")
    origin, path = lab.origins["ec", "TLSv1.3", "genuine"], lab.path("browser")
    process, url = proxy
    assert "hello" not in _browse(program, tmp_path, url, origin.url(path))
    assert not origin.has_seen(path)
    status, out, _ = _summary(process)
    assert status == 3
    assert re.search(rf"(?m)^localhost:{origin.port} +left, unproven why ", out), out
