"""Answers the V2 request in one file into another, with no server: what the servers must answer.

python3 answer.py REQUEST.json ANSWER.json
"""

import json
import sys
from pathlib import Path

import v2

if __name__ == "__main__":
    request, answer = map(Path, sys.argv[1:])
    (output,) = v2.run(v2.session(), [v2.decode(json.loads(request.read_text()))])
    answer.write_text(json.dumps(v2.encode(output)))
