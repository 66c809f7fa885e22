"""Triton's clients, as programs use them."""

import asyncio
import importlib
import queue

import numpy as np
from public_clients import DATA_TYPES, MODULES
from soak import over_grpc
from soak.crowd import PATIENCE, Crowd
from soak.question import Answer
from soak.questions import Questions
from soak.refusals import Refusal
from soak.tally import Fault
from tritonclient.utils import InferenceServerException


def arguments(module, question, binary):
    """`question` as the arguments of `infer`; `binary` says how HTTP carries tensors."""
    is_grpc = "grpc" in module.__name__
    inputs = []
    for name, array in question.inputs.items():
        inputs.append(module.InferInput(name, list(array.shape), DATA_TYPES[array.dtype]))
        inputs[-1].set_data_from_numpy(array, **({} if is_grpc else {"binary_data": binary}))
    outputs = None
    if question.named or not binary:
        how = {} if is_grpc else {"binary_data": binary}
        outputs = [
            module.InferRequestedOutput(name, class_count=question.classes, **how) for name in question.expected
        ]
    return {
        "model_name": question.model,
        "inputs": inputs,
        "model_version": question.version,
        "outputs": outputs,
        "request_id": question.id,
        "priority": question.parameters.get("priority", 0),
        "timeout": question.parameters.get("timeout"),
    }


def read(result, question):
    """What came as an `InferResult`."""
    told = result.get_response()
    if hasattr(told, "model_version"):
        return over_grpc.read(told)
    outputs = {}
    for tensor in told["outputs"]:
        values = result.as_numpy(tensor["name"])
        if values.dtype.kind in "OSU":
            texts = [each if isinstance(each, bytes) else str(each).encode() for each in values.flat]
            values = np.array(texts, object).reshape(values.shape)
        outputs[tensor["name"]] = values
    return Answer(outputs, told["model_version"], told.get("id", ""))


def refusal(error):
    """What an exception of the clients says."""
    status = error.status()
    if status is None:
        return Refusal(None, error.message())
    return Refusal(int(status) if status.isdigit() else status.removeprefix("StatusCode."), error.message())


class Public(Crowd):
    """One protocol of the clients: those of asyncio, and those that block, each in a thread."""

    PROTOCOL = ""
    # Of the client that blocks.
    OPTIONS = {}

    def __init__(self, addresses, questions, tally):
        super().__init__(addresses, questions, tally)
        self.address = addresses[self.PROTOCOL]
        self._blocking = importlib.import_module(MODULES[self.PROTOCOL])
        self._asyncio = importlib.import_module(MODULES[f"{self.PROTOCOL}_asyncio"])

    def _binary(self, questions):
        return questions.random.random() < 0.5

    async def one_after_the_other(self):
        """Asks one question after the other with the client of asyncio, some of them compressed."""
        async with self._asyncio.InferenceServerClient(self.address) as client:
            for _ in range(20):
                question = self.questions.any()
                await self._ask(client, question, **self._compression())

    async def at_once(self):
        """Asks several questions at once."""
        async with self._asyncio.InferenceServerClient(self.address) as client:
            await asyncio.gather(*(self._ask(client, self.questions.any()) for _ in range(12)))

    async def must_refuse(self):
        """Asks what must be refused, then something else."""
        draw = self.random.choice([self.questions.contradicting, self.questions.unknown, self.questions.failing])
        async with self._asyncio.InferenceServerClient(self.address) as client:
            for question in (draw(), self.questions.brief()):
                await self._ask(client, question)

    async def look_around(self):
        """Asks for everything that is no inference."""
        async with self._asyncio.InferenceServerClient(self.address) as client:
            model = self.questions.any().model
            if not await client.is_server_live() or not await client.is_model_ready(model):
                raise Fault(f"the server or its model {model} is not ready")
            await client.get_model_metadata(model)
            await client.get_model_config(model)
            await client.get_inference_statistics()
            await client.get_model_repository_index()

    async def blocking(self):
        """Asks with the client that blocks: one question after the other, and several at once."""
        await self._block(self._ask_and_block)

    async def _block(self, act):
        """Runs `act`, which blocks, in a thread; what is random there is drawn by it alone."""
        self._settle(await asyncio.to_thread(act, Questions(self.random.getrandbits(64))))

    def _settle(self, settled):
        for question, outcome in settled:
            self.tally.settle(question, outcome)

    def _ask_and_block(self, questions):
        settled = []
        with self._blocking.InferenceServerClient(self.address, **self.OPTIONS) as client:
            for _ in range(10):
                question = questions.any()
                settled.append((question, self._blocked(question, client.infer, self._binary(questions))))
            settled += self._several(client, [questions.any() for _ in range(8)])
        return settled

    def _blocked(self, question, infer, binary):
        try:
            return read(infer(**arguments(self._blocking, question, binary)), question)
        except InferenceServerException as error:
            return refusal(error)

    async def _ask(self, client, question, **options):
        try:
            result = await client.infer(
                **arguments(self._asyncio, question, self._binary(self.questions)), **options
            )
        except InferenceServerException as error:
            self.tally.settle(question, refusal(error))
        else:
            self.tally.settle(question, read(result, question))


class PublicHttp(Public):
    """Over HTTP."""

    PROTOCOL = "http"
    ACTORS = 10

    def _compression(self):
        one, other = self.random.choices([None, "gzip", "deflate"], [8, 1, 1], k=2)
        return {"request_compression_algorithm": one, "response_compression_algorithm": other}

    ACTS = {
        Public.one_after_the_other: 8,
        Public.at_once: 3,
        Public.must_refuse: 2,
        Public.look_around: 1,
    }


class BlockingHttp(Public):
    """Over HTTP with the client that blocks. It has an event loop of its own, gevent's: with several of them in one
    process, an answer may come and never be read. So it has a process for itself."""

    PROTOCOL = "http"
    OPTIONS = {"concurrency": 8, "network_timeout": PATIENCE}
    ACTORS = 1

    async def _block(self, act):
        self._settle(act(self.questions))

    def _several(self, client, questions):
        """`async_infer`, which promises results."""
        promised = [
            (question, client.async_infer(**arguments(self._blocking, question, True))) for question in questions
        ]
        settled = []
        for question, promise in promised:
            try:
                settled.append((question, read(promise.get_result(timeout=PATIENCE), question)))
            except InferenceServerException as error:
                settled.append((question, refusal(error)))
        return settled

    ACTS = {Public.blocking: 1}


class PublicGrpc(Public):
    """Over gRPC, also in streams."""

    PROTOCOL = "grpc"
    ACTORS = 10

    def _compression(self):
        return {"compression_algorithm": self.random.choices([None, "gzip", "deflate"], [8, 1, 1])[0]}

    def _several(self, client, questions):
        """`async_infer`, which calls back."""
        came = queue.Queue()
        for question in questions:
            client.async_infer(
                **arguments(self._blocking, question, True),
                callback=lambda result, error, question=question: came.put((question, result, error)),
            )
        return [self._called_back(*came.get(timeout=PATIENCE)) for _ in questions]

    def _called_back(self, question, result, error):
        return question, refusal(error) if error else read(result, question)

    async def typed(self):
        """Asks with typed contents, which the clients above never send."""
        async with over_grpc.channel(self.address) as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=over_grpc.service_pb2.ModelInferRequest.SerializeToString,
                response_deserializer=over_grpc.service_pb2.ModelInferResponse.FromString,
            )
            for _ in range(10):
                question = self.questions.any()
                try:
                    came = over_grpc.read(await ask(over_grpc.message(question, typed=True)))
                except over_grpc.grpc.RpcError as error:
                    came = over_grpc.refusal(error)
                self.tally.settle(question, came)

    async def stream(self):
        """Asks in a stream, whose answers come in the order of the requests."""
        questions = [self.questions.streamed() for _ in range(self.random.randint(1, 40))]
        questions.insert(self.random.randrange(len(questions)), self.questions.unknown())

        async def requests():
            for question in questions:
                yield arguments(self._asyncio, question, True)

        async with self._asyncio.InferenceServerClient(self.address) as client:
            answers = [each async for each in client.stream_infer(requests())]
        if len(answers) != len(questions):
            raise Fault(f"{len(answers)} answers came in a stream of {len(questions)} requests")
        for question, (result, error) in zip(questions, answers, strict=True):
            self.tally.settle(question, refusal(error) if error else read(result, question))

    async def blocking_stream(self):
        """The same with the client that blocks."""
        await self._block(self._stream_and_block)

    def _stream_and_block(self, questions):
        asked, came = [questions.streamed() for _ in range(20)], queue.Queue()
        with self._blocking.InferenceServerClient(self.address) as client:
            client.start_stream(lambda result, error: came.put((result, error)))
            for question in asked:
                client.async_stream_infer(**arguments(self._blocking, question, True))
            settled = [self._called_back(question, *came.get(timeout=PATIENCE)) for question in asked]
            client.stop_stream()
        return settled

    ACTS = {
        Public.one_after_the_other: 6,
        Public.at_once: 4,
        Public.must_refuse: 2,
        Public.look_around: 1,
        Public.blocking: 3,
        typed: 4,
        stream: 4,
        blocking_stream: 2,
    }
