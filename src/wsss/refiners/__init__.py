"""Steps that improve activation maps without masks, one file each; see `base`."""

from wsss.refiners.base import Refiner, RefinerConfig, find_refiner, list_refiners

__all__ = ["Refiner", "RefinerConfig", "find_refiner", "list_refiners"]
