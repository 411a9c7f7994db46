"""Why a request gets no answer, with the status that tells it: HTTP's, and the one of gRPC that goes with it."""

from __future__ import annotations

from sut.errors import cut

INVALID = 400
UNKNOWN = 404
TOO_SLOW = 408
TOO_LARGE = 413
FAILED = 500
BUSY = 503
TOO_LATE = 504

GRPC = {
    INVALID: "INVALID_ARGUMENT",
    UNKNOWN: "NOT_FOUND",
    TOO_LARGE: "RESOURCE_EXHAUSTED",
    FAILED: "INTERNAL",
    BUSY: "RESOURCE_EXHAUSTED",
    TOO_LATE: "DEADLINE_EXCEEDED",
}
"""Names of gRPC's status codes, by HTTP's."""


class Unanswered(Exception):
    """A request that gets no answer; ``status`` is HTTP's. The text may have a stranger's words in it: it is cut."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(cut(text))
        self.status = status


class Refused(Unanswered):
    """The request is at fault, or there are too many: nothing was computed for it."""


class Broken(Unanswered):
    """It was taken up and failed: the server is at fault."""
