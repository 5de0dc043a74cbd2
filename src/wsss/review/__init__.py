"""Which pseudo masks to look at first, without a true mask: signals, a ranking and a page to step through."""

from wsss.review.ranking import Ranked, rank, share_of_worst
from wsss.review.review import Review, review

__all__ = ["Ranked", "Review", "rank", "review", "share_of_worst"]
