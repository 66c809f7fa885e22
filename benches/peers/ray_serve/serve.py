"""Ray Serve: HAProxy before replicas, which are actors of a Ray cluster of one node.

Its docs: "Enable High Throughput on Ray Serve with KubeRay" (`RAY_SERVE_ENABLE_HA_PROXY` and
`RAY_SERVE_THROUGHPUT_OPTIMIZED`; set where this is started), "Performance Tuning" (replicas, CPUs reserved for each),
"Configure Ray Serve deployments" (`max_ongoing_requests`, 5 unless raised, must let a batch fill), "Dynamic Request
Batching" (`max_batch_size`, `batch_wait_timeout_s`).
"""

import signal

import orjson
import ray
import v2
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=v2.CORES, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Mlp:
    def __init__(self):
        self.model = v2.session()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0)
    async def infer(self, batch):
        return v2.run(self.model, batch)

    async def __call__(self, http: Request) -> Response:
        if http.method != "POST" or http.url.path != v2.PATH:
            return Response(status_code=404)
        try:
            request = orjson.loads(await http.body())
            tensor = v2.decode(request)
        except (KeyError, TypeError, ValueError) as error:
            return Response(orjson.dumps({"error": str(error)}), 400, media_type="application/json")
        answer = v2.encode(await self.infer(tensor), request.get("id"))
        return Response(orjson.dumps(answer), media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=v2.CORES, include_dashboard=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": v2.PORT})
    serve.run(Mlp.bind(), route_prefix=f"/v2/models/{v2.MODEL}")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
