"""Random questions for every model of the soak."""

import functools
import random
from dataclasses import replace

import numpy as np
import onnxruntime
from server_process import SAMPLES
from soak.over_http import packed
from soak.question import Question

# Bytes of tensors from which on a request may be refused for the memory that all take together. 64 KiB are free;
# as JSON, the same take up to 4.5 times as many, and count twice, and compressed they count once more.
LARGE = 4 << 10
LETTERS = "abcdefghijklmnopqrstuvwxyzäöü€😀\"\\/ \n"


class Questions:
    """Draws questions; the same seed draws the same ones."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._name, self._drawn = f"{seed:x}", 0

    # Which model.

    def any(self):
        """A question that is to be answered, to any model."""
        return self._one_of(EVERY)

    def brief(self):
        """A question to a model that takes little time."""
        return self._one_of(BRIEF)

    def forsaken(self):
        """A question to a model whose counts need not be known to the unit: its client may leave."""
        return self._one_of(FORSAKEN)

    def streamed(self):
        """As `any`, but never the reason for which a stream ends: that its message takes too much memory."""
        while "no memory" in (question := self.any()).refusals:
            pass
        return question

    def _one_of(self, weights):
        (draw,) = self.random.choices(list(weights), weights.values())
        return draw(self)

    # Each model.

    def identity(self, model="identity"):
        """Answers what it was sent."""
        sent = self._floats(self._rows(), self._length())
        return self._made(model, {"INPUT0": sent}, {"OUTPUT0": sent}, len(sent))

    def large(self):
        """As `identity`, up to 256 KB, so that few at once move the memory little; as JSON up to a megabyte. Of few
        shapes, since ONNX Runtime remembers each in some tens of bytes."""
        sent = self._floats(self._rows(), 1_001 * self.random.randint(2, 8))
        return self._made("identity", {"INPUT0": sent}, {"OUTPUT0": sent}, len(sent))

    def ordered(self):
        return self.identity("ordered")

    def remembered(self):
        """Half of them come again and again."""
        if self.random.random() < 0.5:
            return self.identity("remembered")
        number = self.random.randrange(100)
        sent = np.full((1 + number % 8, 1 + number), number, np.float32)
        return self._made("remembered", {"INPUT0": sent}, {"OUTPUT0": sent}, len(sent))

    def strings(self):
        """Answers the strings that it was sent."""
        shape = (self.random.randint(1, 4), self.random.randint(1, 8))
        texts = ["".join(self.random.choices(LETTERS, k=self._length() // 8)) for _ in range(shape[0] * shape[1])]
        sent = np.array([text.encode() for text in texts], object).reshape(shape)
        return self._made("identity_bytes", {"INPUT0": sent}, {"OUTPUT0": sent}, 1)

    def simple(self):
        """The sum and the difference."""
        first, second = self._integers(self._rows(), 16)
        right = {"OUTPUT0": first + second, "OUTPUT1": first - second}
        return self._some("simple", {"INPUT0": first, "INPUT1": second}, right, len(first))

    def simple_string(self):
        """The same of numbers that are text."""
        first, second = self._integers(self._rows(), 16)
        right = {"OUTPUT0": _text(first + second), "OUTPUT1": _text(first - second)}
        return self._some("simple_string", {"INPUT0": _text(first), "INPUT1": _text(second)}, right, len(first))

    def digits(self):
        """Real images; each version by its number, or the latest; sometimes the likeliest classes."""
        images, right, labels = _digits()
        chosen = self._numbers.integers(0, len(images), self.random.choice([1, 1, 2, 5, 32]))
        version = self.random.choice(["", "1", "2"])
        served_by = version or "2"
        classes = self.random.choice([0, 0, 0, 1, 3])
        return self._made(
            "digits",
            {"image": images[chosen]},
            {"probabilities": right[served_by][chosen]},
            len(chosen),
            version=version,
            served_by=served_by,
            classes=classes,
            named=classes > 0,
            labels=labels,
            tolerance=2e-6,
        )

    def ragged(self):
        """A sum for the request, and each number twice; more than one row has no sum."""
        rows = self.random.choice([1] * 30 + [2])
        values = self._numbers.integers(-100, 100, (rows, self.random.randint(0, 60))).astype(np.float32)
        right = {"SUM": values.sum(axis=1, keepdims=True), "TWICE": values * 2}
        if rows > 1:
            del right["SUM"]
        return self._made("ragged_sums", {"VALUES": values}, right, rows, named=rows > 1)

    def optional(self):
        """Some of the outputs, in some order."""
        value = self._floats(1)
        right = {"PLUS": value + np.float32(1), "TWICE": value * 2}
        names = self.random.sample(sorted(right), self.random.randint(1, 2))
        expected = {name: right[name] for name in names}
        return self._made("optional_outputs", {"INPUT0": value}, expected, 1, named=True)

    def slow(self):
        """Takes up to some hundredths of a second."""
        rounds = np.array([self.random.randint(1, 10)])
        return self._made("slow", {"INPUT0": rounds}, {"OUTPUT0": np.array([512], np.float32)}, 1)

    def narrow(self):
        """Few may wait, and not for long."""
        parameters = {"timeout": self.random.randint(1_000, 40_000)} if self.random.random() < 0.5 else {}
        question = self._slow_rows("narrow", self._floats(self._rows(), 1), parameters)
        return question.allowing("full", "expired", "too late")

    def levels(self):
        """Has priorities; few of the first may wait."""
        priority = self.random.randrange(4)
        parameters = {"priority": priority} if priority else {}
        question = self._slow_rows("levels", self._floats(self._rows(), 1), parameters)
        return question.allowing("full") if priority == 1 else question

    def shared(self):
        """Is asked the same at the same time, and remembers."""
        known = np.float32([[self.random.randrange(1_000)]])
        return self._shared(known) if self.random.random() < 0.7 else self.shared_at_first()

    def shared_at_first(self):
        """Has most likely not been asked before."""
        return self._shared(self._floats(1, 1))

    def gather(self):
        """One of three rows."""
        row = self.random.randrange(3)
        return self._made("fails_to_run", {"INPUT0": np.array([row])}, {"OUTPUT0": np.float32([10 * row + 10])}, 1)

    # What must be refused.

    def failing(self):
        """The model cannot run it."""
        if self.random.random() < 0.5:
            return self._made(
                "fails_to_run", {"INPUT0": np.array([7])}, {}, 1, refusals=frozenset(["failed"]), answerable=False
            )
        words = np.full((1, 16), b"seven", object)
        inputs = {"INPUT0": words, "INPUT1": words}
        return self._made("simple_string", inputs, {}, 1, refusals=frozenset(["failed"]), answerable=False)

    def contradicting(self):
        """Contradicts its model."""
        kind = self.random.randrange(4)
        if kind == 0:
            made = self._made("simple", dict(zip(("INPUT0", "INPUT1"), self._integers(9, 16), strict=True)), {}, 9)
        elif kind == 1:
            made = self._made("identity", {"INPUT0": np.zeros((1, 3), np.int64)}, {}, 1)
        elif kind == 2:
            made = self._made("simple_string", {"INPUT9": np.full((1, 16), b"1", object)}, {}, 1)
        else:
            made = self._slow_rows("levels", self._floats(1, 1), {"priority": 4})
        return _refused(made, "contradicts")

    def unknown(self):
        """There is no such model, or no such version."""
        made = self.identity("nope") if self.random.random() < 0.5 else self.identity()
        return _refused(made, "unknown", version="" if made.model == "nope" else "9")

    # What they are made of.

    def _made(self, model, inputs, expected, rows, **more):
        self._drawn += 1
        if sum(len(packed(array)) for array in inputs.values()) > LARGE:
            more["refusals"] = more.get("refusals", frozenset()) | {"no memory"}
        identity = f"{self._name}-{self._drawn}" if self.random.random() < 0.8 else ""
        return Question(model, inputs, expected, rows=rows, id=identity, **more)

    def _some(self, model, inputs, expected, rows):
        """Asks for all of the outputs, or for some by name."""
        if self.random.random() < 0.5:
            return self._made(model, inputs, expected, rows)
        names = self.random.sample(sorted(expected), self.random.randint(1, len(expected)))
        return self._made(model, inputs, {name: expected[name] for name in names}, rows, named=True)

    def _slow_rows(self, model, sent, parameters=None):
        return self._made(model, {"INPUT0": sent}, {"OUTPUT0": sent * 2}, len(sent), parameters=parameters or {})

    def _shared(self, sent):
        return self._slow_rows("shared", sent).allowing("full")

    def _rows(self):
        return self.random.choice([1, 1, 1, 1, 2, 3, 4, 8])

    def _length(self):
        """Few are long."""
        return int(2 ** self.random.uniform(0, 11))

    def _floats(self, *shape):
        """Numbers that are exact in FP32, and short as decimals."""
        return (self._numbers.integers(-(2**20), 2**20, shape) / 1024).astype(np.float32)

    def _integers(self, *shape):
        return self._numbers.integers(-(2**30), 2**30, (2, *shape)).astype(np.int32)


def _refused(question, reason, **more):
    """The same question, which must be refused for `reason`."""
    return replace(question, expected={}, refusals=frozenset([reason]), answerable=False, **more)


def _text(numbers):
    return np.char.mod("%d", numbers).astype(np.bytes_).astype(object)


@functools.cache
def _digits():
    """Images, what each version answers to them, and the labels."""
    directory = SAMPLES / "digits"
    images = np.load(directory / "heldout_images.npy")
    right = {}
    for version in ("1", "2"):
        model = onnxruntime.InferenceSession(directory / version / "model.onnx", providers=["CPUExecutionProvider"])
        (right[version],) = model.run(None, {"image": images})
    return images, right, tuple((directory / "labels.txt").read_text().split())


BRIEF = {
    Questions.identity: 20,
    Questions.ordered: 10,
    Questions.remembered: 15,
    Questions.strings: 5,
    Questions.simple: 20,
    Questions.simple_string: 8,
    Questions.digits: 15,
    Questions.ragged: 12,
    Questions.optional: 4,
    Questions.gather: 2,
}
TAKE_THEIR_TIME = {
    Questions.large: 1,
    Questions.narrow: 3,
    Questions.levels: 3,
    Questions.shared: 3,
    Questions.slow: 0.3,
}
EVERY = BRIEF | TAKE_THEIR_TIME
FORSAKEN = {
    Questions.identity: 6,
    Questions.large: 3,
    Questions.ordered: 6,
    Questions.remembered: 6,
    Questions.digits: 4,
    Questions.ragged: 4,
    Questions.optional: 2,
    Questions.levels: 4,
    Questions.shared: 6,
    Questions.slow: 2,
}
