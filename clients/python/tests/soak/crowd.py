"""Many actors that do one act after the other, each drawn at random."""

import asyncio
import time

from soak.tally import Fault

# Far longer than any act takes on a machine under load. What takes longer has lost its answer.
PATIENCE = 60  # seconds


class Crowd:
    """Actors that share what is random, what is asked, and one tally. `ACTS` has the weight of each act."""

    ACTS = {}
    # Acts that take many seconds, and how many at most: none is begun that would hold up the end.
    LONG = frozenset()
    LONGEST = 0
    ACTORS = 1

    def __init__(self, addresses, questions, tally):
        self.addresses, self.questions, self.tally = addresses, questions, tally
        self.random = questions.random
        self.until = None  # seconds of the monotonic clock

    async def rehearse(self):
        """Does each act once, all at the same time, but for the long ones."""
        async with asyncio.TaskGroup() as group:
            for act in self.ACTS.keys() - self.LONG:
                group.create_task(self._do(act))

    async def perform(self, seconds):
        """Lets all actors act for so long."""
        self.until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(self.ACTORS):
                group.create_task(self._act())

    async def _act(self):
        while (left := self.until - time.monotonic()) > 0:
            (act,) = self.random.choices(list(self.ACTS), self.ACTS.values())
            if act not in self.LONG or left > self.LONGEST:
                await self._do(act)

    async def _do(self, act):
        name = f"{type(self).__name__}.{act.__name__}"
        try:
            async with asyncio.timeout(PATIENCE):
                await act(self)
        except TimeoutError as error:
            raise Fault(f"{name} has no answer after {PATIENCE} s") from error
        except Fault as fault:
            raise Fault(f"{name}: {fault}") from fault
        self.tally.acts[name] += 1

    def soon(self, longest):
        """A random time of up to `longest` seconds, most often a short one."""
        return asyncio.sleep(longest * self.random.random() ** 3)
