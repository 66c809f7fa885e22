"""Most of the load: well-behaved HTTP with as little work for the client as there can be."""

import asyncio
import gzip
from dataclasses import dataclass

from soak import over_http
from soak.crowd import Crowd
from soak.question import Question

PREPARED = 300
# Uses of a prepared request before it is replaced by another one.
USES = 40


@dataclass
class Prepared:
    """A request that is sent many times, by several connections at once."""

    question: Question
    data: bytes
    # An answer that was read and found to be right: the same bytes are right again.
    right: bytes | None = None
    uses: int = 0


class Volume(Crowd):
    """Sends prepared requests over connections that stay, and looks at every byte of the answers."""

    ACTORS = 32

    def __init__(self, addresses, questions, tally):
        super().__init__(addresses, questions, tally)
        self._prepared = [self._prepare(questions.any()) for _ in range(PREPARED)]
        self._idle = []

    def _prepare(self, question):
        binary_in, binary_out = self.random.random() < 0.5, self.random.random() < 0.5
        if self.random.random() > 0.05:
            return Prepared(question, over_http.request(question, binary_in, binary_out))
        content, json_length = over_http.body(question, binary_in, binary_out)
        headers = [f"Inference-Header-Content-Length: {json_length}"] if binary_in else []
        content = gzip.compress(content, 1)
        headers += ["Content-Encoding: gzip", f"Content-Length: {len(content)}"]
        return Prepared(question, over_http.head(question, headers) + content)

    async def some(self):
        """Sends some requests over one connection."""
        connection = self._idle.pop() if self._idle else await over_http.Connection.open(self.addresses["http"])
        for _ in range(20):
            await self._ask(connection, self.random.randrange(PREPARED))
            if not connection.reusable:
                break
        if not connection.reusable or self.random.random() < 0.05:
            connection.close()
        else:
            self._idle.append(connection)

    async def _ask(self, connection, index):
        prepared = self._prepared[index]
        status, answer_head, content = await connection.ask(prepared.data)
        if content == prepared.right:
            self.tally.count_answer(prepared.question)
        else:
            self.tally.settle(prepared.question, over_http.read(status, answer_head, content))
            if status == 200:
                prepared.right = content
        prepared.uses += 1
        if prepared.uses >= USES:
            self._prepared[index] = self._prepare(self.questions.any())

    async def must_refuse(self):
        """Asks what must be refused, then something else over the same connection."""
        draw = self.random.choice(
            [self.questions.contradicting, self.questions.unknown, self.questions.failing, self.questions.gather]
        )
        connection = await over_http.Connection.open(self.addresses["http"])
        for question in (draw(), self.questions.brief()):
            self.tally.settle(question, over_http.read(*await connection.ask(over_http.request(question))))
        connection.close()

    async def burst(self):
        """Asks a model of which few may wait from many connections at once."""

        async def one():
            connection = await over_http.Connection.open(self.addresses["http"])
            question = self.random.choice([self.questions.narrow, self.questions.levels])()
            self.tally.settle(question, over_http.read(*await connection.ask(over_http.request(question))))
            connection.close()

        await asyncio.gather(*(one() for _ in range(12)))

    ACTS = {some: 100, must_refuse: 10, burst: 2}
