"""Fuzz the reader: ``python -m tests.fuzz --count 10000 --seed 1``."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.harness import child, run


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Read damaged image files and see that each is refused well."
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        first, last = (int(value) for value in options.child.split(":"))
        child(first, last, options.seed)
        return 0
    report = run(options.count, options.seed, options.first)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items()))
    sys.stdout.write("".join(f"{failure}\n" for failure in report.failures))
    sys.stdout.write(
        f"{counts}; {len(report.failures)} failures; slowest {report.slowest:.2f} s, "
        f"at most {report.peak / 2**20:.0f} MiB resident\n"
    )
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
