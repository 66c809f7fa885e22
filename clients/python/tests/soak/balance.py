"""What the server has counted, held against what its clients saw."""

import functools

from soak.refusals import REASONS
from soak.tally import ANSWERED, ROWS, UNKNOWN

FAILURES = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


def differences(metrics, outcomes, exactly):
    """Sentences about what does not add up; none when all does. `outcomes` are those of a `Tally`, `exactly` the
    models whose clients have waited for every answer."""
    found = []
    for served, seen in sorted(outcomes.items()):
        model, version = served.split("/")
        unknown = seen[UNKNOWN]
        if unknown and model in exactly:
            found.append(f"{served}: {unknown} requests have no known outcome, though their clients wait")

        counted = functools.partial(metrics.value, model=model, version=version)
        expected = {"success": seen[ANSWERED]} | {
            failure: sum(seen[reason.name] for reason in REASONS.values() if reason.counted == failure)
            for failure in FAILURES
        }
        got = {"success": counted("nv_inference_request_success")} | {
            failure: counted("nv_inference_request_failure", reason=failure) for failure in FAILURES
        }
        expected["requests"], got["requests"] = sum(expected.values()), sum(got.values())
        for what, least in expected.items():
            if not least <= got[what] <= least + unknown:
                seen_by_clients = f"{least} to {least + unknown}"
                found.append(f"{served}: {got[what]:.0f} counted as {what}, but clients saw {seen_by_clients}")
        rows, hits = counted("nv_inference_count"), counted("nv_cache_num_hits_per_model")
        if not unknown and not hits and rows != seen[ROWS]:
            found.append(f"{served}: {rows:.0f} inferences counted, but clients saw {seen[ROWS]} rows answered")
        # Each miss is one request that had to run, so it has an outcome of its own.
        misses = counted("nv_cache_num_misses_per_model")
        if hits + misses > got["requests"]:
            found.append(f"{served}: {hits:.0f} hits and {misses:.0f} misses, but {got['requests']:.0f} requests counted")
        if executions := counted("nv_inference_exec_count"):
            if executions + hits > got["success"] or executions > rows:
                found.append(f"{served}: {executions:.0f} executions, {hits:.0f} hits and {rows:.0f} inferences")
    return found
