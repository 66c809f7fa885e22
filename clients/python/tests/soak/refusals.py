"""For which reasons a request may be refused, and how the server counts each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """A refusal as both protocols tell it."""

    name: str
    http: int
    grpc: str
    text: str
    # The `reason` of `nv_inference_request_failure`; None when the request reached no version.
    counted: str | None


REASONS = {
    reason.name: reason
    for reason in (
        Reason("full", 503, "UNAVAILABLE", "Exceeds maximum queue size", "REJECTED"),
        Reason("expired", 503, "UNAVAILABLE", "Request timeout expired", "REJECTED"),
        Reason("too late", 503, "UNAVAILABLE", "is expected to take", "REJECTED"),
        Reason("no memory", 503, "UNAVAILABLE", "the requests that the server is at take the", None),
        Reason("contradicts", 400, "INVALID_ARGUMENT", "", "OTHER"),
        Reason("failed", 500, "INTERNAL", "failed to execute", "BACKEND"),
        Reason("malformed", 400, "INVALID_ARGUMENT", "", None),
        Reason("unknown", 404, "NOT_FOUND", "Request for unknown model", None),
        Reason("too slow", 408, "DEADLINE_EXCEEDED", "the request was not whole in time", None),
    )
}

# A client's own deadline: whether the server has run the request, refused it or never seen it is not known.
DEADLINE = "deadline"


@dataclass(frozen=True)
class Refusal:
    """What came instead of an answer: a status of HTTP or a code of gRPC, None where a stream tells neither."""

    status: int | str | None
    text: str

    def reason(self, allowed):
        """Which of the names in `allowed` this is; None when it is none of them."""
        for name in sorted(allowed):
            if name == DEADLINE:
                if self.status == "DEADLINE_EXCEEDED" and "Deadline Exceeded" in self.text:
                    return name
                continue
            reason = REASONS[name]
            if self.status in (None, reason.http, reason.grpc) and self.text and reason.text in self.text:
                return name
        return None
