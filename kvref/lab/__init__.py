"""The lab: what notebooks show, draw and ask with, and the way into the course.

    %load_ext kvref.lab             in a notebook: from now on it knows the cell magics %%redis and %%real
    from kvref.lab import Table, Timeline, Wire, figure, judge, predict, progress
    python -m kvref.lab open        the course, in a folder of the reader's own
    python -m kvref.lab html DIR    the course as pages to read
    python -m kvref.lab normalise   execute notebooks, and write them so that a diff shows what changed
    python -m kvref.lab grade       judge the designs of somebody's capstone, with a seed of your own

Interface:
  - redis_magic  %%redis: commands in a cell, replies as redis-cli prints them
  - real         %%real, for cells that need real sockets and processes
  - questions    predict, concepts and progress: questions before answers
  - judging      judge: exercises that judge themselves; the judges in notebooks/exercises/
  - wire         Wire: the bytes of RESP, every one named
  - table        Table: rows that look right as text and in a notebook
  - caches       workloads, exact LRU, LFU and Belady's optimum, kvref on the same requests, a stampede
  - brokers      models of a log with offsets and of a queue with acknowledgements
  - timeline     Timeline: what the event loop did, as a table and as a figure
  - losses       what crashes have lost: tables, sawtooth, ECDF, frontier, outcomes
  - plug         kill -9 of real servers, and a count of what was lost
  - clients      redis-py on a simulated computer, and a redis-server beside kvref
  - capstone     guarantees as sentences, designs, and the judge of both
  - briefs       the three customers of the capstone, as data
  - readme       the README's picture and table of losses
  - figures      figure: one look for all figures
  - modules      the map of the package, read from the package
  - cli          replies as redis-cli prints them
  - reader       the reader's copy of the course, and JupyterLab on it
  - html         the course as pages, from the committed notebooks and their outputs
  - cells        the cells of a notebook as a page shows them
  - normalise    notebooks as they are committed

This is the only place in kvref that uses more than the standard library. Nothing of it is imported before it
is needed, so that a notebook without figures also runs where there is no matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAMES = {"Table": "table", "Timeline": "timeline", "Wire": "wire", "figure": "figures", "judge": "judging",
         "concepts": "questions", "predict": "questions", "progress": "questions",
         **dict.fromkeys(("loss_table", "sawtooth", "quantiles", "ecdf", "summary_rows", "summary_page", "price_table",
                          "frontier", "outcome_table", "heat_map"), "losses")}
MAGICS = ("real", "redis_magic")


def __getattr__(name: str) -> Any:
    """What notebooks import by name comes from its module when it is first asked for."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{NAMES[name]}"), name)


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext kvref.lab` calls."""
    for magic in MAGICS:
        import_module(f"{__name__}.{magic}").load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What `%unload_ext kvref.lab` calls."""
    for magic in MAGICS:
        import_module(f"{__name__}.{magic}").unload(shell)
