"""A network between a client and a server that can be cut."""

import contextlib
import select
import socket
import threading


class Relay:
    """Passes bytes between those who connect to it and a server; each connection on a thread of its own."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self._server = (host, int(port))
        self._open = []
        self._some = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._accept()

    def _accept(self):
        def accept(listener):
            with contextlib.suppress(OSError):  # it was cut
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection(self._server)
                    self._open += [client, server]
                    threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

        threading.Thread(target=accept, args=(self._listener,), daemon=True).start()

    def _pass(self, client, server):
        other = {client: server, server: client}
        with contextlib.suppress(OSError, ValueError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    if not (data := ready.recv(1 << 16)):
                        return
                    other[ready].sendall(data)
                    if ready is server:
                        self._some.set()

    def wait_for_one(self):
        """Waits until the server has answered someone."""
        assert self._some.wait(60)

    def cut(self):
        """Nobody is connected any more, and nobody can connect."""
        for end in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def mend(self):
        """Whoever connects again is passed on."""
        self._some.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._accept()
