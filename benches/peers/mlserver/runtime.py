"""MLServer: the V2 protocol by KServe's other server, in Python; it has no runtime for ONNX, so this is a custom one.

Its docs: "Custom Inference Runtimes" (`MLModel` with `load` and `predict`), "Adaptive Batching" (`max_batch_size`,
`max_batch_time` in seconds, both needed), "Parallel Inference" (`parallel_workers`).
"""

import v2
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Mlp(MLModel):
    async def load(self) -> bool:
        self.model = v2.session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (given,) = payload.inputs
        (output,) = v2.run(self.model, [NumpyCodec.decode_input(given)])
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("output", output)],
        )
