"""Run as a program: kill a prediction with SIGKILL three times, each a random while after a file is there.

Each attempt is a process of its own (forked, so that the imports are paid once). Writes how many were killed.

    python killed_prediction.py MODEL IMAGES OUT SEED
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from wsss.segmentation.image_list import find_images
from wsss.segmentation.model import PredictionSettings, SegmentationModel
from wsss.segmentation.predict_images import predict_images

KILLS = 3


def main(model: str, images: str, out: str, seed: str) -> int:
    torch.set_num_threads(1)
    place = Path(out)
    loaded, found = SegmentationModel.from_pretrained(model), find_images([images], Path(out))
    rng, killed = random.Random(seed), 0
    while True:
        process = os.fork()
        if process == 0:
            made = predict_images(loaded, found, Path(out), PredictionSettings(), overlays=True)
            os._exit(3 if made.failures else 0)
        pause = rng.uniform(0, 0.01)  # after the first file that the last attempt had not come to
        while True:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                sys.stdout.write(f"{killed}\n")
                return os.waitstatus_to_exitcode(status)
            if killed < KILLS and len(list(place.rglob("*.png"))) > killed:
                time.sleep(pause)
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                killed += 1
                break
            time.sleep(0.002)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
