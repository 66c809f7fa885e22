"""Clients of HTTP that break off, stall, lie and talk nonsense."""

import asyncio
import gzip
import socket
import struct

from soak import over_http
from soak.crowd import Crowd
from soak.models import CLIENT_TIMEOUT
from soak.refusals import Refusal
from soak.tally import Fault

# Closing then resets the connection.
RESET = struct.pack("ii", 1, 0)


class RudeHttp(Crowd):
    """Ill-mannered clients; what they ask to the end is answered like anything else."""

    ACTORS = 24

    async def _open(self):
        return await over_http.Connection.open(self.addresses["http"])

    def _request(self, question):
        return over_http.request(question, self.random.random() < 0.5, self.random.random() < 0.5)

    def _leave(self, connection):
        """Ends the connection in one of the ways there are."""
        way = self.random.randrange(3)
        if way == 0:
            connection.close()
            return
        if way == 1 and not connection.transport.is_closing():
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.abort()

    def _part(self, data, least=1):
        """Where to break off."""
        return self.random.randint(least, len(data) - 1)

    async def leave_within_the_request(self):
        """Goes after a part of the head or of the body."""
        connection, data = await self._open(), self._request(self.questions.forsaken())
        connection.send(data[: self._part(data)])
        await self.soon(0.05)
        self._leave(connection)

    async def leave_before_the_answer(self):
        """Goes with its request on its way, waiting or running."""
        connection, question = await self._open(), self.questions.forsaken()
        self.tally.lose_sight_of(question)
        connection.send(self._request(question))
        await self.soon(0.05)
        self._leave(connection)

    async def leave_within_the_answer(self):
        """Goes with a part of the answer."""
        connection, question = await self._open(), self.questions.large()
        self.tally.lose_sight_of(question)
        connection.send(self._request(question))
        # A refusal is as long, too.
        await connection.receives(self.random.randint(1, 150))
        self._leave(connection)

    async def ask_the_same(self):
        """Asks the same over several connections at once: one of the requests runs, and the others wait for its
        answer. Half of them leave, perhaps that one."""
        connections, question = [await self._open() for _ in range(6)], self.questions.shared_at_first()
        for connection in connections:
            connection.send(self._request(question))
        self.random.shuffle(connections)
        leaving, staying = connections[:3], connections[3:]
        await self.soon(0.02)
        for connection in leaving:
            self.tally.lose_sight_of(question)
            self._leave(connection)
        for connection in staying:
            self.tally.settle(question, over_http.read(*await connection.answer()))
            connection.close()

    async def read_slowly(self):
        """Reads a long answer with pauses."""
        connection, question = await self._open(), self.questions.large()
        connection.send(self._request(question))
        for _ in range(5):
            connection.transport.pause_reading()
            await self.soon(0.2)
            connection.transport.resume_reading()
            await asyncio.sleep(0)
        self.tally.settle(question, over_http.read(*await connection.answer()))
        connection.close()

    async def never_read(self):
        """Reads nothing of answers that no buffer holds, until the server gives up or a while is over."""
        connection = await self._open()
        connection.transport.pause_reading()
        for _ in range(24):
            question = self.questions.large()
            self.tally.lose_sight_of(question)
            connection.send(self._request(question))
        await self.soon(self.LONGEST)
        self._leave(connection)

    async def stall(self):
        """Sends its request in pieces, with pauses that are short enough."""
        connection, question = await self._open(), self.questions.any()
        data = self._request(question)
        cuts = sorted(self._part(data) for _ in range(3))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            connection.send(data[begin:end])
            await self.soon(0.2)
        self.tally.settle(question, over_http.read(*await connection.answer()))
        connection.close()

    async def stall_for_too_long(self):
        """Never sends the end of its body, or of its head: it is told so, or shut out. A long body has more time."""
        connection, data = await self._open(), self._request(self.questions.shared())
        within_body = self.random.random() < 0.5
        connection.send(data[:-1] if within_body else data[:20])
        try:
            came = over_http.read(*await connection.answer())
            if not isinstance(came, Refusal) or came.reason({"too slow", "no memory"}) is None:
                raise Fault(f"half a request was answered with {came}")
        except over_http.Closed:
            if within_body:
                raise
        connection.close()

    async def in_chunks(self):
        """Sends a body whose length nobody knows before."""
        connection, question = await self._open(), self.questions.streamed()
        content, _ = over_http.body(question, False, False)
        connection.send(over_http.head(question, ["Transfer-Encoding: chunked"]))
        while content:
            size = self.random.randint(1, max(1, len(content)))
            connection.send(b"%x\r\n%b\r\n" % (size, content[:size]))
            content = content[size:]
            await self.soon(0.01)
        connection.send(b"0\r\n\r\n")
        self.tally.settle(question, over_http.read(*await connection.answer()))
        connection.close()

    async def malformed(self):
        """Sends what is no request, is told so, and then sends one."""
        connection, question = await self._open(), self.questions.identity()
        content, _ = over_http.body(question, False, False)
        at = content.index(b'"inputs"') + len(b'"inputs"')
        headers, bad = self.random.choice(
            [
                ([], content[: self.random.randint(1, len(content) - 1)]),
                ([], content[:at] + b"\0" + content[at:]),
                ([], content[:at] + b"\xff" + content[at:]),
                ([], b"[" * 100_000),
                ([], self.random.randbytes(200)),
                ([], content.replace(b'"datatype"', b'"datatyp"')),
                ([f"Inference-Header-Content-Length: {len(content) + 1}"], content),
                ([f"Inference-Header-Content-Length: {len(content)}"], content + b"too much"),
                (["Content-Encoding: gzip"], gzip.compress(content)[:-9]),
                (["Content-Encoding: gzip"], content),
            ]
        )
        headers = [*headers, f"Content-Length: {len(bad)}"]
        came = over_http.read(*await connection.ask(over_http.head(question, headers) + bad))
        if not isinstance(came, Refusal) or came.reason({"malformed", "no memory"}) is None:
            raise Fault(f"{headers} with {bad[:300]} was answered with {came}")
        if connection.reusable:
            good = self.questions.brief()
            self.tally.settle(good, over_http.read(*await connection.ask(self._request(good))))
        connection.close()

    async def nonsense(self):
        """Sends anything to either port."""
        connection = await over_http.Connection.open(self.addresses[self.random.choice(["http", "grpc"])])
        connection.send(self.random.randbytes(self.random.randint(1, 5_000)))
        await self.soon(0.1)
        self._leave(connection)

    async def say_nothing(self):
        """Connects and goes."""
        connection = await self._open()
        await self.soon(0.1)
        self._leave(connection)

    ACTS = {
        leave_within_the_request: 10,
        leave_before_the_answer: 20,
        leave_within_the_answer: 5,
        ask_the_same: 8,
        read_slowly: 3,
        never_read: 1,
        stall: 5,
        stall_for_too_long: 1,
        in_chunks: 5,
        malformed: 8,
        nonsense: 3,
        say_nothing: 3,
    }
    LONG = frozenset([never_read, stall_for_too_long])
    LONGEST = 2 * CLIENT_TIMEOUT
