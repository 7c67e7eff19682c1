"""What is going to go wrong on a disk: faults, as data.

    disk.faults.append(Fault("write", "*.aof", error="ENOSPC", short=5, after=100, times=0))      # the disk is full
    disk.faults.append(Fault("fsync", delay_us=3_000_000))                                        # it is slow, once
    disk.faults.append(Fault("fsync", lies=True, after=2))                      # the third fsync reports, and does not
    disk.faults.append(Fault("write", rots="*dump.rdb", bit=83, after=4))       # before the fifth write, a bit flips

Interface:
  - Fault                           one of them; `fired` tells how often it has struck
  - strike(faults, kind, path)      what they do to this operation, all together: a Strike

An operation that two faults concern counts for both.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from kvref.sim.errors import TEXTS
from kvref.sim.inodes import LIES


@dataclass(repr=False)
class Fault:
    """Something that is going to go wrong, from the `after`-th such operation on, `times` times (0: for ever).

    A write that is `short` takes so many bytes; with an `error` beside it, as on a full disk, the first write that
    it strikes is short and the next ones fail. An fsync that `lies` reports success and makes nothing durable, no name
    and no size either; what an honest one saves later is saved. Just before an operation with which a file `rots`, one
    bit of what is durable of it flips: who reads it, now or after a crash, reads that.
    """

    kind: str                       # create open read write truncate fsync rename unlink mkdir fsync_dir list; "*": any
    path: str = "*"                 # as in a shell; what is open goes by its present name
    error: str = ""                 # "EIO", "ENOSPC" ...
    short: int = 0                  # bytes
    delay_us: int = 0
    lies: bool = False
    rots: str = ""                  # the file (as `path`), which need not be that of the operation
    bit: int = 0                    # ... of it, from its beginning, and behind its end from there again
    after: int = 0
    times: int = 1
    matches: int = field(default=0, compare=False)      # such operations so far

    def __post_init__(self) -> None:
        if self.error and getattr(errno, self.error, None) not in TEXTS:
            raise ValueError(f"this disk knows no error {self.error!r}")

    @property
    def fired(self) -> int:
        """How often it has struck."""
        struck = max(0, self.matches - self.after)
        return min(struck, self.times) if self.times else struck

    @property
    def is_short(self) -> bool:
        """Whether its last strike was a short write."""
        return bool(self.short) and (self.fired == 1 or not self.error)

    def concerns(self, kind: str, path: str) -> bool:
        return self.kind in (kind, "*") and fnmatchcase(path, self.path)

    def strikes(self) -> bool:
        """Count an operation that it concerns."""
        before = self.fired
        self.matches += 1
        return self.fired > before

    def fresh(self) -> Fault:
        """The same, and it has not struck yet."""
        return replace(self, matches=0)

    def __repr__(self) -> str:
        told = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(self)[1:-1]
                if getattr(self, each.name) != each.default]
        return f"Fault({', '.join([repr(self.kind), *told])})" + f" struck {self.fired} times" * bool(self.fired)


class Strike(NamedTuple):
    """What all faults together do to one operation."""

    error: str = ""
    short: int = 0
    delay_us: int = 0
    rots: tuple[tuple[str, int], ...] = ()


NONE = Strike()


def strike(faults: Iterable[Fault], kind: str, path: str) -> Strike:
    """Count this operation, and tell what happens to it."""
    struck = [fault for fault in faults if fault.concerns(kind, path) and fault.strikes()]
    if not struck:
        return NONE
    short = [fault.short for fault in struck if fault.is_short]
    errors = [fault.error for fault in struck if fault.error and not fault.is_short]
    errors += [LIES for fault in struck if fault.lies]
    return Strike(errors[0] if errors else "", min(short, default=0), sum(fault.delay_us for fault in struck),
                  tuple((fault.rots, fault.bit) for fault in struck if fault.rots))
