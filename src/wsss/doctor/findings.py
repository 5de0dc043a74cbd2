"""Findings: one thing that a check noticed, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Level = Literal["error", "warning", "note"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")
SHOWN: Final = 5  # names that a finding lists


@dataclass(frozen=True)
class Finding:
    """One thing that a check noticed.

    Args:
        level: "error" (a run would stop or be worthless), "warning" (results suffer) or "note".
        code: short name of the kind of finding, the same for ever: `unreadable-image`.
        what: one sentence.
        advice: what to do; one or two sentences.
        where: the first names that it is about.
        count: how many there are in all; 0 where it is about no names.
    """

    level: Level
    code: str
    what: str
    advice: str
    where: tuple[str, ...] = ()
    count: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "where": list(self.where)}

    @property
    def place(self) -> str:
        """The names for people, with how many more there are."""
        if not self.where:
            return ""
        more = self.count - len(self.where)
        return ", ".join(self.where) + (f" and {more:,} more" if more > 0 else "")


def about(level: Level, code: str, what: str, advice: str, names: Iterable[str]) -> list[Finding]:
    """One finding about these names, in their order; none where there are no names."""
    found = list(names)
    if not found:
        return []
    return [Finding(level, code, what, advice, tuple(found[:SHOWN]), len(found))]


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; else as they came."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))
