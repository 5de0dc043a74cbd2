"""Captions from names: one sentence that lists what an image shows."""

from __future__ import annotations

from collections.abc import Sequence


def caption(names: Sequence[str], template: str) -> str:
    """Put a list of names into a template, in the wording that CLIMS fine-tuned CLIP with.

    One name stands alone, two are joined by "and", three to five by commas with ", and" before the last, six
    or more by commas with " and" (no comma) before the last.

    Args:
        names: at least one.
        template: text with one `{}`.

    Source:
        CLIMS (Xie et al., CVPR 2022), camera-ready code, fine-tuning of CLIP; it knows up to six names.

    Example:
        >>> caption(["dog", "cat", "car"], "a photo of {}")
        'a photo of dog, cat, and car'
    """
    if len(names) <= 2:
        listed = " and ".join(names)
    else:
        comma = "," if len(names) <= 5 else ""
        listed = f"{', '.join(names[:-1])}{comma} and {names[-1]}"
    return template.format(listed)
