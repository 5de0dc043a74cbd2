"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int = 1) -> str:
    """A Markdown table with a blank line on each side; empty without rows.

    Args:
        head: column headings.
        rows: cells.
        numbers_from: first column that is aligned to the right.
    """
    if not rows:
        return ""
    ruler = ["---" if place < numbers_from else "---:" for place in range(len(head))]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows)]
    return "\n" + "\n".join(lines) + "\n\n"
