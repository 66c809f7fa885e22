"""Writes models that are too big to commit.

python3 xtask/python/models.py --out DIRECTORY [mlp] [resnet50] [minilm]
"""

import argparse
from pathlib import Path

import minilm
import mlp
import resnet50

MODELS = {"mlp": mlp.write, "resnet50": resnet50.write, "minilm": minilm.write}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the model repository to write to")
    parser.add_argument(
        "names", nargs="*", metavar="MODEL", help=f"which of {', '.join(MODELS)}; all when none is named"
    )
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in MODELS]
    if unknown:
        parser.error(f"there is no model {unknown[0]!r}; there are {', '.join(MODELS)}")
    for name in args.names or MODELS:
        MODELS[name](args.out / name)
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
