"""What clients asked and saw, counted; what must not be is raised."""

from collections import Counter, defaultdict

from soak.question import Answer
from soak.refusals import DEADLINE

ANSWERED, ROWS, UNKNOWN = "answered", "rows", "outcome unknown"


class Fault(Exception):
    """A server that keeps its promises never causes it."""


class Tally:
    """Requests by the version that counts them and by what became of them, and acts by name."""

    def __init__(self):
        self.outcomes = defaultdict(Counter)
        self.acts = Counter()

    def settle(self, question, outcome):
        """Counts what came for `question`, an `Answer` or a `Refusal`, if it may."""
        if isinstance(outcome, Answer):
            if fault := question.fault(outcome):
                raise Fault(f"{question.served}, request {question.id!r}: {fault}")
            self.count_answer(question)
            return
        reason = outcome.reason(question.refusals)
        if reason is None:
            allowed = sorted(question.refusals) or "an answer alone"
            raise Fault(f"{question.served}, request {question.id!r}: {outcome}, where {allowed} may come")
        self.outcomes[question.served][UNKNOWN if reason == DEADLINE else reason] += 1

    def count_answer(self, question):
        """Counts a right answer."""
        self.outcomes[question.served][ANSWERED] += 1
        self.outcomes[question.served][ROWS] += question.rows

    def lose_sight_of(self, question):
        """Counts a request whose client will not know what became of it."""
        self.outcomes[question.served][UNKNOWN] += 1

    def add(self, other):
        """Adds what `other`, a tally that went through JSON, has counted."""
        for served, outcomes in other["outcomes"].items():
            self.outcomes[served].update(outcomes)
        self.acts.update(other["acts"])

    def as_json(self):
        """For `add`."""
        return {"outcomes": self.outcomes, "acts": self.acts}
