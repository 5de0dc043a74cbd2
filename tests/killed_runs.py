"""Run as a program: kill a run with SIGKILL at random moments until it has finished.

Each attempt is a process of its own (forked, so that the imports are paid once). Writes how many were killed.

    python killed_runs.py RECIPE RUNS SEED     (SEED never: no kill at all)
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import torch

from wsss.engine import estimate, run  # noqa: F401  (everything is imported before the first fork)
from wsss.report import page  # noqa: F401


def attempt(recipe: str, runs: str) -> None:
    """One process: run the recipe, say whether it ended well."""
    try:
        run.run(recipe, runs=runs)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        sys.stderr.flush()
        os._exit(3)
    os._exit(0)


def main(recipe: str, runs: str, seed: str) -> int:
    torch.set_num_threads(1)
    if seed == "never":
        attempt(recipe, runs)
    rng, killed = random.Random(seed), 0
    while True:
        process = os.fork()
        if process == 0:
            attempt(recipe, runs)
        # pauses grow, so that every stage is hit sooner or later and the run still ends
        deadline = time.monotonic() + rng.uniform(0.1, 0.8 + 0.4 * killed)
        while True:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                sys.stdout.write(f"{killed}\n")
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                killed += 1
                break
            time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3]))
