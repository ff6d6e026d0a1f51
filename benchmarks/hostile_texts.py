"""The slowest instruction functions on a megabyte of hostile text: repeated pieces of `tests/instructions/hostile.py`.

    python -m benchmarks.hostile_texts --characters 1000000

Times are CPU seconds of one function on one text, without cached features: the function writes a satisfied and a
violated instruction and checks the text with each. Prints the slowest functions; exits with 1 if one took more than
`--most` seconds.
"""

from __future__ import annotations

import argparse

from mapl_ray.instructions import REGISTRY, Features
from tests.instructions.hostile import PIECES, seconds, text_of


def main() -> int:
    """Measure every function on every text, and print the slowest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--most", type=float, default=2.0, help="seconds")
    parser.add_argument("--show", type=int, default=12)
    parser.add_argument(
        "--piece", action="append", help=r"only this piece, in Python's notation: '- a\n'; may be repeated"
    )
    args = parser.parse_args()
    functions = [function for function in REGISTRY.values() if function.sides != "soft"]
    pieces = [unit for unit in PIECES if args.piece is None or repr(unit)[1:-1] in args.piece]
    if not pieces:
        parser.error(f"--piece: expected some of {' '.join(map(repr, PIECES))}")
    times = []
    for unit in pieces:
        text = text_of(unit, args.characters)
        times += [(seconds(function, Features(text)), function.name, unit) for function in functions]
        print(f"{unit!r}: slowest {max(one for one in times if one[2] == unit)[:2]}", flush=True)
    times.sort(reverse=True)
    print(f"\n{len(functions)} functions, {len(pieces)} texts of {args.characters} characters\n")
    print("| CPU seconds | function | repeated |\n|---|---|---|")
    for found, name, unit in times[: args.show]:
        print(f"| {found:.2f} | `{name}` | `{unit!r}` |")
    return int(times[0][0] > args.most)


if __name__ == "__main__":
    raise SystemExit(main())
