"""The lab: what notebooks show, draw and ask with, and the way into the course.

    %load_ext kvref.lab             in a notebook: from now on it knows the cell magic %%real
    python -m kvref.lab open        the course, in a folder of the reader's own
    python -m kvref.lab normalise   execute notebooks, and write them so that a diff shows what changed

Interface:
  - real        %%real, for cells that need real sockets and processes
  - table       Table: rows that look right as text and in a notebook
  - timeline    Timeline: what the event loop did, as a table and as a figure
  - modules     the map of the package, read from the package
  - cli         replies as redis-cli prints them
  - reader      the reader's copy of the course, and JupyterLab on it
  - normalise   notebooks as they are committed

This is the only place in kvref that uses more than the standard library. Nothing of it is imported before it
is needed, so that a notebook without figures also runs where there is no matplotlib.
"""

from __future__ import annotations

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext kvref.lab` calls."""
    from kvref.lab import real
    real.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What `%unload_ext kvref.lab` calls."""
    from kvref.lab import real
    real.unload(shell)
