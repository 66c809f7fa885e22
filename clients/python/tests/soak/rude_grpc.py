"""Clients of gRPC that are in a hurry, change their minds, or break off."""

import asyncio

import grpc
from soak import over_grpc, over_http
from soak.crowd import Crowd
from soak.refusals import DEADLINE
from soak.tally import Fault
from tritonclient.grpc import service_pb2_grpc

METHOD = "/inference.GRPCInferenceService/ModelInfer"


class RudeGrpc(Crowd):
    """Ill-mannered clients; what they ask to the end is answered like anything else."""

    ACTORS = 16

    async def in_a_hurry(self):
        """Waits for some milliseconds at most."""
        async with over_grpc.channel(self.addresses["grpc"]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for _ in range(10):
                question = self.questions.forsaken().allowing(DEADLINE, "too late")
                try:
                    answer = await stub.ModelInfer(
                        over_grpc.message(question), timeout=self.random.uniform(0.0005, 0.02)
                    )
                    self.tally.settle(question, over_grpc.read(answer))
                except grpc.RpcError as error:
                    self.tally.settle(question, over_grpc.refusal(error))

    async def change_of_mind(self):
        """Cancels calls, some of which are answered before."""
        async with over_grpc.channel(self.addresses["grpc"]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for _ in range(10):
                question = self.questions.forsaken()
                call = stub.ModelInfer(over_grpc.message(question))
                await self.soon(0.02)
                call.cancel()
                try:
                    self.tally.settle(question, over_grpc.read(await call))
                except asyncio.CancelledError:
                    if not call.cancelled():
                        raise
                    self.tally.lose_sight_of(question)
                except grpc.RpcError as error:
                    self.tally.settle(question, over_grpc.refusal(error))

    async def hang_up(self):
        """Closes its connection with calls under way."""
        channel = over_grpc.channel(self.addresses["grpc"])
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = []
        for _ in range(8):
            question = self.questions.forsaken()
            self.tally.lose_sight_of(question)
            calls.append(stub.ModelInfer(over_grpc.message(question)))
        await self.soon(0.02)
        await channel.close()
        await asyncio.wait([asyncio.ensure_future(_ended(call)) for call in calls])

    async def leave_a_stream(self):
        """Cancels a stream of which it has read a part. A message for which there is no memory ends it before."""
        questions = [self.questions.forsaken() for _ in range(self.random.randint(1, 40))]
        left = list(questions)
        async with over_grpc.channel(self.addresses["grpc"]) as channel:
            stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(
                iter([over_grpc.message(question) for question in questions])
            )
            try:
                for _ in range(self.random.randrange(len(questions))):
                    came, _ = over_grpc.read_streamed(await stream.read())
                    self.tally.settle(left.pop(0), came)
            except grpc.RpcError as error:
                if "no memory" not in _refusals(left) or not _ended_by_the_server(error):
                    raise
            for question in left:
                self.tally.lose_sight_of(question)
            stream.cancel()

    async def malformed(self):
        """Sends messages that contradict themselves, and then one that does not."""
        async with over_grpc.channel(self.addresses["grpc"]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            question = self.questions.identity()
            bad = over_grpc.message(question)
            kind = self.random.randrange(4)
            if kind == 0:
                bad.raw_input_contents[0] += b"\0"
            elif kind == 1:
                bad.raw_input_contents.append(b"")
            elif kind == 2:
                bad.inputs[0].datatype = "FP99"
            else:
                bad.inputs[0].contents.fp32_contents.append(1)
            try:
                answer = await stub.ModelInfer(bad)
                raise Fault(f"a malformed message of kind {kind} was answered with {answer}")
            except grpc.RpcError as error:
                if over_grpc.refusal(error).reason({"malformed", "no memory"}) is None:
                    raise Fault(f"a malformed message of kind {kind} was answered with {error}") from error
            good = self.questions.brief()
            try:
                self.tally.settle(good, over_grpc.read(await stub.ModelInfer(over_grpc.message(good))))
            except grpc.RpcError as error:
                self.tally.settle(good, over_grpc.refusal(error))

    async def break_off(self):
        """Ends its connection within a message, after it, or with a reset of the stream."""
        question = self.questions.forsaken()
        message = over_grpc.message(question).SerializeToString()
        data = b"\0" + len(message).to_bytes(4) + message
        whole = self.random.random() < 0.5
        connection = await over_http.Connection.open(self.addresses["grpc"])
        connection.send(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, CALL))
        # No more than fits without the server's leave.
        data = data[:16_000]
        if whole and len(data) == len(message) + 5:
            self.tally.lose_sight_of(question)
            connection.send(frame(DATA, END_STREAM, 1, data))
        else:
            connection.send(frame(DATA, 0, 1, data[: self.random.randrange(len(data))]))
        await self.soon(0.02)
        if self.random.random() < 0.5:
            connection.send(frame(RST_STREAM, 0, 1, CANCEL))
            await self.soon(0.02)
        connection.abort()

    ACTS = {
        in_a_hurry: 10,
        change_of_mind: 10,
        hang_up: 5,
        leave_a_stream: 8,
        malformed: 5,
        break_off: 10,
    }


def _ended_by_the_server(error):
    """Whether a stream ended for lack of memory. Who is sending then is told by the client, and not why."""
    sending = "SendMessageOperation" in error.debug_error_string()
    return sending or over_grpc.refusal(error).reason({"no memory"}) is not None


def _refusals(questions):
    """All reasons for which one of `questions` may be refused."""
    return frozenset().union(*(question.refusals for question in questions))


async def _ended(call):
    """Waits for the end of a call, whatever it is."""
    try:
        await call
    except (grpc.RpcError, asyncio.CancelledError):
        pass


# As much of HTTP/2 (RFC 9113) as a client needs that breaks off.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4
CANCEL = (8).to_bytes(4)


def frame(kind, flags, stream, payload):
    """One frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def field(name, value):
    """A header field that goes into no table, its texts as they are (RFC 7541 §6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


CALL = b"".join(
    field(name, value)
    for name, value in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", METHOD),
        (":authority", "soak"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
)
