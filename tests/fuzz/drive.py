"""Feed the harnesses for as long as one likes: `python tests/fuzz/drive.py --seconds 30`.

Without anything else, inputs are seeds that are bent and joined with words of HTTP, drawn from
`--seed`. `--coverage` hands over to atheris, where that is installed: it watches which inputs reach
new code, and takes harnesses one at a time (`--harness connection`).

A finding ends the run with the status 1. Its input is printed, and written to a file where `--keep`
names a folder; give that file's bytes to `--input` to see it again.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import random
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

# Beside the other files of tests/, which have no package.
sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import tokens
from fuzz.harnesses import HARNESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.harnesses import Harness

MAX_INPUT = 4096


def main(argv: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    arguments = options().parse_args(argv)
    # What handlers do on purpose is logged with a traceback each.
    logging.lastResort = None
    names = [arguments.harness] if arguments.harness else list(HARNESSES)
    if arguments.input:
        for name in names:
            HARNESSES[name](arguments.input.read_bytes())
        return 0
    if arguments.coverage:
        watch_coverage(HARNESSES[names[0]], arguments.seconds)
    return draw(names, random.Random(arguments.seed), arguments.seconds, arguments.keep)  # noqa: S311 - inputs, not secrets


def options() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description="Feed the harnesses for as long as one likes.")
    parser.add_argument("--seconds", type=float, default=30, help="how long in all")
    parser.add_argument("--seed", type=int, default=None, help="draw the same inputs again")
    parser.add_argument("--harness", choices=sorted(HARNESSES), help="this one only")
    parser.add_argument("--coverage", action="store_true", help="let atheris choose the inputs")
    parser.add_argument("--keep", type=Path, help="write findings to this folder")
    parser.add_argument("--input", type=Path, help="run one file's bytes, and nothing else")
    return parser


def draw(names: Sequence[str], rng: random.Random, seconds: float, keep: Path | None) -> int:
    """Run inputs drawn at random, harness by harness, until the time is over."""
    seeds, counts, end = tokens.seeds(), dict.fromkeys(names, 0), time.monotonic() + seconds
    while time.monotonic() < end:
        for name in names:
            data = bytes([rng.randrange(16)]) + bend(rng, seeds)
            try:
                HARNESSES[name](data)
            except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
                report(name, data, keep)
                return 1
            counts[name] += 1
    print(", ".join(f"{name}: {count} inputs" for name, count in counts.items()))  # noqa: T201 - for a terminal
    return 0


def bend(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Draw an input: seeds and words joined, and bytes in them changed."""
    sources = [seeds if rng.random() < 0.3 else tokens.ALL for _ in range(rng.randint(1, 9))]
    parts = [rng.choice(source) for source in sources]
    if rng.random() < 0.5:
        parts[0] = rng.choice(seeds)
    data = bytearray(b"".join(parts)[:MAX_INPUT])
    for _ in range(rng.choice((0, 0, 1, 2, 5))):
        start = rng.randint(0, len(data))
        end = start + rng.choice((0, 1, 1, 8))
        data[start:end] = rng.choice((rng.choice(tokens.ALL), rng.randbytes(rng.randint(0, 3))))
    return bytes(data)


def report(name: str, data: bytes, keep: Path | None) -> None:
    """Say what failed, and by which input."""
    traceback.print_exc()
    print(f"{name}({data!r})", file=sys.stderr)  # noqa: T201 - for a terminal
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{name}.bin").write_bytes(data)


def watch_coverage(harness: Harness, seconds: float) -> NoReturn:
    """Run under atheris, which ends the process itself."""
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.exit("--coverage needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds:.0f}", f"-max_len={MAX_INPUT}"], harness)
    atheris.Fuzz()
    raise AssertionError("atheris doesn't return")


if __name__ == "__main__":
    sys.exit(main())
