"""Mean and standard deviation that images are normalised with, RGB in [0, 1]."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Statistics: TypeAlias = Literal["imagenet", "clip"]
Triple: TypeAlias = tuple[float, float, float]

STATISTICS: Final[dict[str, tuple[Triple, Triple]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
