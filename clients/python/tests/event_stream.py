"""Follows the events of a server as they come."""

import http.client
import json
import socket
import threading


class EventStream:
    """The events that one connection has seen. It is open once it is made."""

    def __init__(self, server, query="", headers=None):
        self._server, self.events = server, []
        # How it ended: by the server in good order, unless something is told here.
        self.ended, self.failed = threading.Event(), None
        connection = http.client.HTTPConnection(server.http, timeout=60)
        connection.request("GET", f"/v2/repository/events{query}", headers=headers or {})
        self._socket = connection.sock
        self._response = connection.getresponse()
        assert self._response.status == 200, self._response.read()
        self.content_type = self._response.getheader("Content-Type")
        self.retry = self._response.readline().decode()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        frame = {}
        try:
            while line := self._response.readline().decode():
                if line != "\n":
                    field, _, value = line.partition(":")
                    frame[field] = value.strip()
                elif frame:
                    self._take(frame)
                    frame = {}
        except Exception as error:  # a test that wants an end in good order asks for it
            self.failed = error
        self.ended.set()

    def _take(self, frame):
        if "data" not in frame:
            return  # to keep the connection
        assert frame["event"] == "version", frame
        event = json.loads(frame["data"])
        assert int(frame["id"]) == event["id"]
        self.events.append(event)

    def told(self):
        """Model, version and state of each."""
        return [(event["model"], event["version"], event["state"]) for event in self.events]

    def ids(self):
        return [event["id"] for event in self.events]

    def wait_for(self, model, version, state):
        """Waits until it has been told."""
        self._server.wait_until(lambda: (model, version, state) in self.told(), f"{model} {version} {state}")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the server has ended it
        self._thread.join(60)
        self._response.close()
        self._socket.close()
