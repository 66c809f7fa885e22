"""mosec: an HTTP server and batcher in Rust before Python processes that hold the model.

Its docs: "Interface" (`num` processes, `max_batch_size` and `max_wait_time` in milliseconds), "Performance tuning"
(raise the batch to what the model gains from, and keep the wait below what a batch takes), "Validate request" (msgspec
reads a request into types; here as JSON, by the (de)serialize methods that "Custom (De)serialization" names).
"""

import msgspec
import v2
from mosec import Server, ValidationError, Worker


class Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Request(msgspec.Struct):
    inputs: list[Input]
    id: str | None = None


class Mlp(Worker):
    def __init__(self):
        super().__init__()
        self.model = v2.session()
        self.decoder = msgspec.json.Decoder(Request)
        self.encoder = msgspec.json.Encoder()

    def deserialize(self, data):
        try:
            request = self.decoder.decode(data)
            (given,) = request.inputs
            return request.id, v2.tensor(given.datatype, given.shape, given.data)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValidationError(str(error)) from error

    def serialize(self, data):
        return self.encoder.encode(data)

    def forward(self, data):
        outputs = v2.run(self.model, [tensor for _, tensor in data])
        return [v2.encode(output, identifier) for (identifier, _), output in zip(data, outputs)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Mlp, num=v2.CORES, max_batch_size=32, max_wait_time=1, route=v2.PATH)
    server.run()
