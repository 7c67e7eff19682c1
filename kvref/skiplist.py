"""The order of a sorted set. (To be written.)"""

from __future__ import annotations

from kvref.sampling import Collection


class SortedSet:
    def __init__(self) -> None:
        self.scores: Collection[float] = Collection()

    def __len__(self) -> int:
        return len(self.scores)
