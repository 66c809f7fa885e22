"""Questions as HTTP requests, byte by byte, and a connection that sends them."""

import asyncio
import json
import re

import numpy as np
from public_clients import DATA_TYPES
from soak.question import Answer
from soak.refusals import Refusal
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

NUMPY_TYPES = {datatype: dtype for dtype, datatype in DATA_TYPES.items()}
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
LAST = re.compile(rb"\r\nconnection: close\r\n", re.IGNORECASE)
JSON_LENGTH = re.compile(rb"\r\ninference-header-content-length: (\d+)\r\n", re.IGNORECASE)


class Closed(Exception):
    """The server has closed the connection before its answer was whole."""


def body(question, binary_in, binary_out):
    """The body, and the length of its JSON when binary data follow."""
    asked = {"id": question.id, "inputs": [], "parameters": dict(question.parameters)}
    data = []
    for name, array in question.inputs.items():
        tensor = {"name": name, "datatype": DATA_TYPES[array.dtype], "shape": array.shape}
        if binary_in:
            data.append(packed(array))
            tensor["parameters"] = {"binary_data_size": len(data[-1])}
        else:
            tensor["data"] = [each.decode() for each in array.flat] if array.dtype == object else array.ravel().tolist()
        asked["inputs"].append(tensor)
    if question.named:
        classes = {"classification": question.classes} if question.classes else {}
        asked["outputs"] = [
            {"name": name, "parameters": {"binary_data": binary_out} | classes} for name in question.expected
        ]
    else:
        asked["parameters"]["binary_data_output"] = binary_out
    text = json.dumps(asked, ensure_ascii=False).encode()
    return b"".join([text, *data]), len(text) if binary_in else None


def packed(array):
    """Little-endian bytes; strings have their lengths in front."""
    if array.dtype != object:
        return array.tobytes()
    return serialize_byte_tensor(array).item() if array.size else b""


def request(question, binary_in=False, binary_out=False, headers=()):
    """The whole request."""
    content, json_length = body(question, binary_in, binary_out)
    if json_length is not None:
        headers = [*headers, f"Inference-Header-Content-Length: {json_length}"]
    return head(question, [*headers, f"Content-Length: {len(content)}"]) + content


def head(question, headers):
    """The request up to its body."""
    version = f"/versions/{question.version}" if question.version else ""
    lines = [f"POST /v2/models/{question.model}{version}/infer HTTP/1.1", "Host: soak", *headers, "", ""]
    return "\r\n".join(lines).encode()


def read(status, answer_head, content):
    """What came: an `Answer` or a `Refusal`."""
    if status != 200:
        return Refusal(status, json.loads(content)["error"])
    length = JSON_LENGTH.search(answer_head)
    at = int(length[1]) if length else len(content)
    told = json.loads(content[:at])
    outputs = {}
    for tensor in told["outputs"]:
        dtype, size = NUMPY_TYPES[tensor["datatype"]], tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = [each.encode() for each in tensor["data"]] if dtype == object else tensor["data"]
            values = np.array(data, dtype)
        elif dtype == object:
            values = deserialize_bytes_tensor(content[at : at + size])
        else:
            values = np.frombuffer(content[at : at + size], dtype)
        at += size or 0
        outputs[tensor["name"]] = values.reshape(tensor["shape"])
    return Answer(outputs, told["model_version"], told.get("id", ""))


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    @classmethod
    async def open(cls, address):
        host, port = address.split(":")
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return connection

    def connection_made(self, transport):
        self.transport, self._received, self._waiting = transport, bytearray(), None
        self._moved = asyncio.Event()
        self._lost = asyncio.get_running_loop().create_future()
        # False once the server has said that it closes the connection.
        self.reusable = True

    def data_received(self, data):
        self._received += data
        self._moved.set()
        self._look()

    def connection_lost(self, error):
        self._lost.set_result(error)
        self._moved.set()
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(Closed(str(error)))

    def _look(self):
        if not self._waiting or self._waiting.done():
            return
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        answer_head = bytes(self._received[: end + 2])
        length = int(LENGTH.search(answer_head)[1])
        begin = end + 4
        if len(self._received) >= begin + length:
            content = bytes(self._received[begin : begin + length])
            del self._received[: begin + length]
            self.reusable = not LAST.search(answer_head)
            self._waiting.set_result((int(answer_head[9:12]), answer_head, content))

    def send(self, data):
        """Sends a part of a request."""
        self.transport.write(data)

    async def answer(self):
        """The status, the head and the body of the next answer."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._look()  # it may have come before the connection ended
        if self._lost.done() and not self._waiting.done():
            raise Closed(str(self._lost.result()))
        return await self._waiting

    async def ask(self, data):
        """Sends a whole request and waits for its answer."""
        self.send(data)
        return await self.answer()

    async def receives(self, size):
        """Waits until so many bytes have come, of whatever, or the connection has ended."""
        while len(self._received) < size and not self._lost.done():
            self._moved.clear()
            await self._moved.wait()

    def close(self):
        """Ends the connection in good order."""
        self.transport.close()

    def abort(self):
        """Ends it at once, whatever is on its way."""
        self.transport.abort()
