"""python -m kvref.lab open | html | normalise | grade: the course, for who runs it, reads it, writes it or teaches it.

Interface:
  - main(words)    the exit status: 0, or 1 with one sentence on standard error
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kvref.lab import reader

ABOUT = ("The course that takes a Redis apart. open: read and run it. html: make pages of it, to be read only. "
         "normalise: after changing it. grade: after others have.")


def main(words: Sequence[str]) -> int:
    """Run one command."""
    parser = _parser()
    options, more = parser.parse_known_args(words)
    if more and options.do is not _open:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    try:
        return int(options.do(options, more))
    except reader.LabError as error:
        print(f"kvref.lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m kvref.lab", description=ABOUT)
    commands = parser.add_subparsers(required=True, metavar="open | html | normalise | grade")
    opens = commands.add_parser(
        "open", help="open the course in JupyterLab, in a folder of your own",
        description="Copies the chapters that FOLDER lacks, without their outputs, and opens JupyterLab there. What "
                    "you have written is never changed. Other options go to JupyterLab. Ctrl-C ends it.")
    opens.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="default: my-course in the checkout")
    opens.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    opens.add_argument("--port", type=int, help="of JupyterLab; default: 8888, or the next that is free")
    opens.set_defaults(do=_open)
    pages = commands.add_parser(
        "html", help="write the course as pages to read",
        description="Writes the course with its outputs as pages that ask the network for nothing and need no "
                    "JavaScript; answers to predictions are folded. DIR is new, empty, or holds an earlier edition, "
                    "which becomes this one. Open DIR/index.html.")
    pages.add_argument("folder", type=Path, metavar="DIR")
    pages.set_defaults(do=_html)
    normal = commands.add_parser(
        "normalise", help="execute notebooks and write them as they are committed",
        description="Executes notebooks and writes them so that a diff shows what has changed and nothing else.")
    normal.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all of the course")
    normal.add_argument("--check", action="store_true", help="change nothing; name the cells that are not normal")
    normal.set_defaults(do=_normalise)
    grades = commands.add_parser(
        "grade", help="judge the designs of somebody's chapter 14, with seeds of your own",
        description="Runs notebooks, which are somebody's programs, takes the guarantees and designs that they have "
                    "judged last, and judges them here. Without --seed you are asked for the seeds when all have "
                    "ended: a program can read the command line. Exit status 1 unless all are true; dearer than "
                    "needed is true.")
    grades.add_argument("notebooks", type=Path, nargs="+", metavar="NOTEBOOK")
    grades.add_argument("--brief", nargs="+", default=(), dest="briefs", metavar="NAME",
                        help="of the customers that were to be chosen from; default: all three")
    grades.add_argument("--seed", type=int, nargs="+", dest="seeds", metavar="SEED",
                        help="of a crash schedule: keep it to yourself; several find more than one")
    grades.set_defaults(do=_grade)
    return parser


def _open(options: argparse.Namespace, more: list[str]) -> int:
    folder = options.folder or reader.default_copy()
    print(reader.fill(folder), "Ctrl-C here ends JupyterLab.", flush=True)
    reader.run_lab(folder, not options.no_browser, options.port, more)
    return 0


def _html(options: argparse.Namespace, _: list[str]) -> int:
    from kvref.lab import html
    try:
        html.check(options.folder)
        print(html.write(options.folder, html.build()))
    except OSError as error:
        raise reader.LabError(f"{error.filename or options.folder}: {error.strerror}.") from None
    return 0


def _normalise(options: argparse.Namespace, _: list[str]) -> int:
    from kvref.lab import normalise
    paths = options.notebooks or normalise.course()
    do, done = (normalise.check, "normal") if options.check else (normalise.rewrite, "executed and normalised")
    problems = [problem for path in paths for problem in do(path)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{len(paths)} notebook{'s' * (len(paths) != 1)} {done}.")
    return bool(problems)


def _grade(options: argparse.Namespace, _: list[str]) -> int:
    from kvref.lab import capstone
    from kvref.lab.briefs import BRIEFS
    if unknown := set(options.briefs) - set(BRIEFS):
        raise reader.LabError(f"there is no brief {unknown.pop()!r}; there are {', '.join(BRIEFS)}.")
    handed_in, good = {}, True
    for number, path in enumerate(options.notebooks, 1):
        if len(options.notebooks) > 1:
            print(f"{number} of {len(options.notebooks)}: {path}", file=sys.stderr)
        try:
            handed_in[path] = capstone.collect(path)
        except reader.LabError as error:
            print(f"kvref.lab: {error}", file=sys.stderr)
            good = False
    seeds = options.seeds or (_asked() if handed_in else [])
    for path, found in handed_in.items():
        print(f"{path}" + "".join(f"\n  {sentence}" for sentence in found.raised))
        for name, verdict in capstone.grade(found, seeds, options.briefs).items():
            print(f"{name}: {verdict}", flush=True)
            good &= verdict.is_true
    return not good


def _asked() -> list[int]:
    """The seeds, from the keyboard. A slip of the finger does not cost what has been run."""
    while True:
        try:
            if seeds := [int(word) for word in input("Seeds, whole numbers: ").replace(",", " ").split()]:
                return seeds
        except ValueError:
            continue
        except EOFError:
            raise reader.LabError("nobody has answered with seeds; give them as --seed 4711 815.") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
