"""A request whose right answer is known."""

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Answer:
    """An answer as it came: the outputs are arrays by name, those of BYTES with elements of bytes."""

    outputs: dict
    version: str
    id: str


@dataclass(frozen=True)
class Question:
    """What is asked of a model, and what it must answer."""

    model: str
    inputs: dict
    # The right outputs by name; with `classes`, what they are the classes of.
    expected: dict
    # Whether the outputs are asked for by name, in the order of `expected`; otherwise they are all there are.
    named: bool = False
    version: str = ""
    # The version that must answer.
    served_by: str = "1"
    parameters: dict = field(default_factory=dict)
    id: str = ""
    classes: int = 0
    labels: tuple = ()
    # How far floats may be from the right ones.
    tolerance: float = 0.0
    # Items, as the server counts inferences.
    rows: int = 1
    # Names of the reasons for which it may be refused; the rest is a fault.
    refusals: frozenset = frozenset()
    # Whether an answer is right at all.
    answerable: bool = True

    @property
    def served(self):
        """The model and version that count it."""
        return f"{self.model}/{self.served_by}"

    def allowing(self, *refusals):
        """The same, with more reasons to be refused."""
        return replace(self, refusals=self.refusals | set(refusals))

    def fault(self, answer):
        """What is wrong with `answer`; None when nothing is."""
        if not self.answerable:
            return "it was answered, but must be refused"
        if answer.version != self.served_by:
            return f"version {answer.version!r} answered instead of {self.served_by!r}"
        if answer.id != self.id:
            return f"the answer to {answer.id!r} came"
        if list(answer.outputs) != list(self.expected) and (self.named or set(answer.outputs) != set(self.expected)):
            return f"outputs {list(answer.outputs)} came instead of {list(self.expected)}"
        compare = self._class_fault if self.classes else self._value_fault
        return next(
            (
                f"output {name}: {fault}"
                for name, right in self.expected.items()
                if (fault := compare(right, answer.outputs[name]))
            ),
            None,
        )

    def _value_fault(self, right, got):
        if (got.dtype, got.shape) != (right.dtype, right.shape):
            return f"{got.dtype}{list(got.shape)} came instead of {right.dtype}{list(right.shape)}"
        if self.tolerance:
            wrong = ~(np.abs(got - right) <= self.tolerance)
        else:
            wrong = got != right
        if not wrong.any():
            return None
        first = np.argwhere(wrong)[0].tolist()
        return f"{wrong.sum()} of {wrong.size} differ, the first at {first}: {got[*first]} instead of {right[*first]}"

    def _class_fault(self, right, got):
        if got.shape != (len(right), self.classes):
            return f"classes of shape {got.shape} came instead of {(len(right), self.classes)}"
        for values, classes in zip(right, got, strict=True):
            split = [each.decode().split(":") for each in classes]
            named = [(float(value), int(index), label) for value, index, label in split]
            least = np.sort(values)[-self.classes] - self.tolerance
            good = all(
                abs(value - values[index]) <= self.tolerance and values[index] >= least and label == self.labels[index]
                for value, index, label in named
            )
            falling = all(one[0] >= other[0] for one, other in zip(named, named[1:], strict=False))
            if not good or not falling or len({index for _, index, _ in named}) != self.classes:
                return f"classes {classes.tolist()} came for {values.tolist()}"
        return None
