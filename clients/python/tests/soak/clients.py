"""The program of one process of clients, started by `test_soak.py`.

It says `ready` when it has done everything once, begins at the next line of its input, and ends with its tally in
JSON, or with a fault: then its exit status is not 0.
"""

import argparse
import asyncio
import faulthandler
import json
import os
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from soak.public import BlockingHttp, PublicGrpc, PublicHttp
from soak.questions import Questions
from soak.rude_grpc import RudeGrpc
from soak.rude_http import RudeHttp
from soak.tally import Fault, Tally
from soak.volume import Volume

# What each process plays.
PROCESSES = {
    "volume": [Volume],
    "public_http": [PublicHttp],
    "blocking_http": [BlockingHttp],
    "public_grpc": [PublicGrpc],
    "rude": [RudeHttp, RudeGrpc],
}


async def play(options):
    """Rehearses, waits for the sign, performs."""
    tally, addresses = Tally(), {"http": options.http, "grpc": options.grpc}
    crowds = [
        crowd(addresses, Questions(options.seed + number), tally)
        for number, crowd in enumerate(PROCESSES[options.process])
    ]
    for crowd in crowds:
        await crowd.rehearse()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with asyncio.TaskGroup() as group:
        for crowd in crowds:
            group.create_task(crowd.perform(options.seconds))
    print(json.dumps(tally.as_json()), flush=True)


async def play_or_die(options):
    """A fault ends the process at once: what waits for an answer that does not come would keep it."""
    try:
        await play(options)
    except BaseException as error:
        told = dict.fromkeys(str(each) if isinstance(each, Fault) else repr(each) for each in leaves(error))
        print(*list(told)[:10], sep="\n", file=sys.stderr)
        traceback.print_exc()
        faulthandler.dump_traceback()
        os._exit(1)


def leaves(error):
    """The exceptions in `error`, which may be a group of groups."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in leaves(each)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--process", choices=PROCESSES, required=True)
    parser.add_argument("--http", required=True)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asyncio.run(play_or_die(parser.parse_args()))


if __name__ == "__main__":
    main()
