"""The four public clients under one interface, so that one test serves them all."""

import asyncio
import importlib
import inspect

import ml_dtypes
import numpy as np

MODULES = {
    "http": "tritonclient.http",
    "http_asyncio": "tritonclient.http.aio",
    "grpc": "tritonclient.grpc",
    "grpc_asyncio": "tritonclient.grpc.aio",
}


class Client:
    """One public client of a server. Its methods are the client's own; those of asyncio are awaited here."""

    def __init__(self, name, server):
        self.name, self.is_grpc = name, name.startswith("grpc")
        self.module = importlib.import_module(MODULES[name])
        self._loop = asyncio.new_event_loop()
        address = server.grpc if self.is_grpc else server.http
        self._client = self._loop.run_until_complete(self._make(address))

    async def _make(self, address):
        return self.module.InferenceServerClient(address)

    def close(self):
        self._finish(self._client.close())
        self._loop.close()

    def _finish(self, result):
        return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result

    def __getattr__(self, method):
        return lambda *arguments, **options: self._finish(getattr(self._client, method)(*arguments, **options))

    def describe(self, method, *arguments):
        """What a method answers, as a dictionary whichever the protocol."""
        options = {"as_json": True} if self.is_grpc else {}
        return getattr(self, method)(*arguments, **options)

    def input(self, name, array, datatype=None, **options):
        """An input tensor; `options` are those of HTTP, such as `binary_data`."""
        tensor = self.module.InferInput(name, list(array.shape), datatype or DATA_TYPES[array.dtype])
        tensor.set_data_from_numpy(array, **({} if self.is_grpc else options))
        return tensor

    def output(self, name, **options):
        """An output to ask for; `binary_data` is for HTTP alone."""
        if self.is_grpc:
            options.pop("binary_data", None)
        return self.module.InferRequestedOutput(name, **options)


DATA_TYPES = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint16): "UINT16",
    np.dtype(np.uint32): "UINT32",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.object_): "BYTES",
}
