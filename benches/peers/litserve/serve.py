"""LitServe: HTTP processes (FastAPI) before worker processes, with a queue between them.

Its docs: "LitServer" (`workers_per_device` is the number of cores on a CPU; `fast_queue` beyond 100 requests a
second; as many API servers as workers), "Batching" (`max_batch_size`, `batch_timeout` in seconds, `batch` and
`unbatch`), "LitAPI" (`api_path`).
"""

import litserve
import v2


class Mlp(litserve.LitAPI):
    def setup(self, device):
        self.model = v2.session()

    def decode_request(self, request):
        return v2.decode(request)

    def batch(self, inputs):
        return inputs

    def predict(self, batch):
        return v2.run(self.model, batch)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return v2.encode(output)


if __name__ == "__main__":
    api = Mlp(max_batch_size=32, batch_timeout=0.001, api_path=v2.PATH)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=v2.CORES, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=v2.PORT,
        num_api_servers=v2.CORES,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
