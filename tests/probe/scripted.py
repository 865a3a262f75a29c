"""
A server that says what a script says, line by line, and then speaks TLS: what STARTTLS and proxies are made of.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import contextmanager


@contextmanager
def scripted(script, context=None):
    """
    The port of a server. *script* holds bytes to send and, in lists, the beginnings of what must arrive in between.

    Yields the port and a list that collects what arrived.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    arrived: list[bytes] = []
    closing = threading.Event()

    def serve():
        while True:
            connection, _ = listener.accept()
            if closing.is_set():
                connection.close()
                return
            connection.settimeout(10)
            with contextlib.suppress(OSError), connection:
                talk(connection)

    def talk(connection):
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(step)
            else:
                arrived.append(connection.recv(4096))
        if context is None:
            while connection.recv(4096):  # until the client has had enough
                pass
        else:
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], arrived
    finally:
        closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=5).close()
        thread.join(10)
        listener.close()
