"""The small models shipped with the package, and the programs that train and measure them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CLIP_FOLDER: Final = Path(__file__).parent / "clip"
VQA_FOLDER: Final = Path(__file__).parent / "vqa"
SALIENCY_FOLDER: Final = Path(__file__).parent / "saliency"

__all__ = ["CLIP_FOLDER", "SALIENCY_FOLDER", "VQA_FOLDER"]
