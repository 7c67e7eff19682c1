"""The course as pages to read: `python -m kvref.lab html DIR`, a static edition of the committed notebooks.

Interface:
  - build(say)            every file of the edition, by its path in DIR; `say` hears a line for each chapter
  - check(folder)         LabError if this folder is not empty and holds no edition
  - write(folder, files)  write them; files that an earlier edition had and this one has not are removed

Invariants: the same checkout gives the same bytes. A page asks for nothing outside DIR, and runs nothing: what an
output or a text brings of that is left out. A file that no edition has made is never written over: `edition.txt` in DIR
names those that are ours.

The paths are those of the checkout, so links stay as they are but for their ends: `../kvref/resp.py` leads to
`../kvref/resp.py.html`. Whatever a page links to becomes a page as well: notebooks, Markdown, folders, source.
What answers a prediction stands in `<details>`, from the output of the cell to the end of the explanation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from bs4 import BeautifulSoup
from nbconvert import TemplateExporter
from nbconvert.filters.highlight import Highlight2HTML
from nbformat.v4 import new_markdown_cell, new_notebook
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from kvref.lab import reader
from kvref.lab.cells import markdown, prepared
from kvref.lab.normalise import read

PARTS = Path(__file__).with_name("edition")         # what all pages share: frame, cells, style
OURS = "edition.txt"
OURS_SAYS = "The files of this edition, made by python -m kvref.lab html; the next edition writes over them.\n"
AS_THEY_ARE = (".svg", ".png", ".rdb")              # no text, or shown by browsers
LIVE = ("script", "style", "link", "meta", "base", "iframe", "object", "embed", "audio", "video", "form")
LEADS = {"a": ("http", "https", "mailto"), "img": ("data",)}                        # outside DIR, or to nowhere
ANSWER = "The answer: what the cell prints, and why"
CURRENT = ' aria-current="page"'
GET_IT = "(README.md#two-commands)"
READING = ("These are pages to read. The course is made to be run: it then judges your answers and your exercises. "
           f"[How to get it]{GET_IT}.")
ABOUT = ('<p class="about">A page to read, with all that the cells have printed. Where you are asked to predict, '
         'decide first; then open your letter, and the answer. To run the cells, and have your exercises judged, '
         '<a href="../README.md#two-commands">get the course itself</a>.</p>')
TOUR = ("README.md", "README")
TEACHING = ["## For teachers", ""]
MORE = ["- [README](README.md): what is in, what is out, where kvref differs from Redis, how to run it",
        "- [The server](kvref/server.py)",
        "- [The map of the package](notebooks/00-start-here.ipynb#The-map-of-the-package), with all of its source"]


class About(NamedTuple):
    """What a page says of itself in its first cell."""

    title: str
    minutes: str
    sentence: str


# ---- pages ---------------------------------------------------------------------------------------

def _plain(heading: Any) -> str:
    return "".join(heading.find_all(string=lambda text: text.parent.get("class") != ["anchor-link"])).strip()


def _anchor(heading: str) -> str:
    """The id of a heading in a Markdown file, as GitHub makes it; those of notebooks are as JupyterLab makes them."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _name(title: str) -> str:
    """A title whose number can stand alone."""
    number, _, name = title.partition(" · ")
    return f'{escape(number)}<span class="name"> · {escape(name)}</span>'


def _about(path: str, cell: Any) -> About:
    text = cell.source if cell.cell_type == "markdown" and cell.source.startswith("# ") else f"# {Path(path).stem}"
    parts = [*text.split("\n\n"), "", ""]
    minutes = re.search(r"\*\*Time:\*\* (\d+ minutes)", text)
    sentence = re.match(r".+?[.?!](?=\s|$)", parts[1], re.S)
    return About(parts[0].strip("# \n"), minutes[1] if minutes else "", sentence[0] if sentence else "")


class Edition:
    """Pages of a checkout; a link adds the page that it leads to."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout.resolve()
        self.exporter = TemplateExporter(raw_template=(PARTS / "cells.html.j2").read_text(encoding="utf-8"),
                                         filters={"markdown2html": markdown, "highlight_code": Highlight2HTML()})
        self.frame = Template((PARTS / "page.html").read_text(encoding="utf-8"))
        texts = [path.relative_to(self.checkout).as_posix() for places in ("*.ipynb", "solutions/*.ipynb", "*.md")
                 for path in sorted((self.checkout / "notebooks").glob(places))]
        self.about = {path: _about(path, cell) for path in texts for cell in self.cells(path)[:1]}
        self.chapters = [path for path in self.about if path.endswith(".ipynb") and "/solutions/" not in path]
        self.wanted = dict.fromkeys([*self.about, "README.md"])         # in order; links add to it

    def cells(self, path: str) -> list[Any]:
        """Those of a notebook; other text is a single cell."""
        there = self.checkout / path
        return list(read(there)[0].cells) if path.endswith(".ipynb") else [new_markdown_cell(there.read_text("utf-8"))]

    def address(self, path: str) -> str:
        """The page of a file or folder, as a path in the edition."""
        if (self.checkout / path).is_dir():
            return f"{path}/index.html"
        return path if path.endswith(AS_THEY_ARE) else f"{re.sub(r'[.](ipynb|md)$', '', path)}.html"

    def link(self, page: str, target: str, outside: Sequence[str] = ()) -> str:
        """What a page says to lead to a file or folder of the checkout, as seen from its own folder."""
        parts = urlsplit(target)
        if parts.scheme in outside or not (parts.scheme or parts.netloc or parts.path):
            return target
        there = Path(os.path.normpath(self.checkout / Path(page).parent / unquote(parts.path)))
        if parts.scheme or parts.netloc or not there.is_relative_to(self.checkout) or not there.exists():
            raise reader.LabError(f"{page} links to {target}, which is not there.")
        path = there.relative_to(self.checkout).as_posix()
        self.wanted.setdefault(path)
        return parts._replace(path=quote(os.path.relpath(self.address(path), Path(page).parent))).geturl()

    def page(self, path: str) -> bytes:
        """The page of a file or folder; what is no text is its own."""
        there = self.checkout / path
        if path.endswith(AS_THEY_ARE):
            return there.read_bytes()
        if there.is_dir():
            names = sorted(inside.name + "/" * inside.is_dir() for inside in there.iterdir()
                           if (inside.name[0] not in "._" or inside.suffix == ".py")
                           and inside.exists() and not (inside / OURS).exists())
            rows = [f"# {path}/\n", *(f"- [`{name}`]({quote(name)})" for name in names)]
            return self.text(f"{path}/index.md", [new_markdown_cell("\n".join(rows))])
        if path.endswith((".ipynb", ".md")):
            return self.text(path, self.cells(path))
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = TextLexer()
        lines = HtmlFormatter(linespans="L", cssclass="listing")         # #L-40 is line 40
        code = highlight(there.read_text(encoding="utf-8", errors="replace"), lexer, lines)
        return self.framed(path, path, f"<h1>{escape(path)}</h1>\n{code}", "source")

    def text(self, path: str, cells: list[Any]) -> bytes:
        """A page of cells."""
        body, _ = self.exporter.from_notebook_node(new_notebook(cells=prepared(cells)), {"answer": ANSWER})
        soup = BeautifulSoup(body, "html.parser")
        if path in self.chapters and soup.h1:
            soup.h1.insert_after(BeautifulSoup(ABOUT, "html.parser"))
        for tag in soup(LIVE):
            tag.decompose()
        for tag in soup(True):
            tag.attrs = {key: value for key, value in tag.attrs.items() if not key.startswith("on") and key != "srcset"}
        for tag in soup.select("a[href], img[src]"):
            key = "href" if tag.name == "a" else "src"
            tag[key] = self.link(path, str(tag[key]), LEADS[tag.name])
        for table in soup.find_all("table"):
            table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
        for mark in soup.find_all("a", class_="anchor-link"):
            heading: Any = mark.parent
            id = _anchor(_plain(heading)) if path.endswith(".md") else unquote(heading["id"])
            heading["id"], mark["href"], mark["aria-label"] = id, f"#{quote(id)}", "Link to this section"
        sections = [(str(heading["id"]), _plain(heading)) for heading in soup.find_all("h2", id=True)]
        return self.framed(path, _plain(soup.h1) if soup.h1 else path, str(soup),
                           "text-page contents" if path == "index.md" else "text-page", sections)

    # ---- the frame -------------------------------------------------------------------------------

    def framed(self, path: str, title: str, content: str, kind: str, sections: Sequence[tuple[str, str]] = ()) -> bytes:
        """A whole page."""
        return self.frame.substitute(
            title=escape(f"{title} · kvref" if path != "index.md" else title), kind=kind, content=content,
            root="../" * path.count("/"), neighbours=self.neighbours(path),
            sidebar=self.sidebar(path, sections) if kind != "source" else "").encode()

    def way(self, page: str, path: str, text: str, more: str = "") -> str:
        """A link of the frame."""
        here = quote(os.path.relpath(self.address(path), Path(page).parent))
        return f'<a href="{here}"{more}>{text}</a>'

    def neighbours(self, path: str) -> str:
        """Links to the chapters before and after, and between a chapter and its solutions."""
        number = Path(path).stem.partition("-")[0]
        solutions = f"notebooks/solutions/{number}.ipynb"
        if path == solutions:
            return "".join(self.way(path, chapter, f"Chapter {number}") for chapter in self.chapters
                           if Path(chapter).name.startswith(f"{number}-"))
        if path not in self.chapters:
            return self.way(path, *TOUR)
        at = self.chapters.index(path)
        before, after = ([(other, _name(self.about[other].title)) for other in others]
                         for others in (self.chapters[:at][-1:], self.chapters[at + 1:][:1]))
        return "".join([*(self.way(path, other, f"← {name}") for other, name in before),
                        *([self.way(path, solutions, "Solutions")] if solutions in self.about else []),
                        *(self.way(path, other, f"{name} →", ' class="next"') for other, name in after)])

    def sidebar(self, path: str, sections: Sequence[tuple[str, str]]) -> str:
        """All chapters, and the sections of this page below its own name."""
        inner = "".join(f'<li><a href="#{quote(id)}">{escape(name)}</a></li>' for id, name in sections)
        rows = [self.way(path, chapter, escape(self.about[chapter].title), CURRENT * (chapter == path))
                + f"<ol>{inner}</ol>" * (chapter == path) for chapter in self.chapters]
        rows += [] if path in self.chapters or not inner else [f"On this page<ol>{inner}</ol>"]
        return ('<nav class="sidebar" aria-label="Contents"><details><summary>Chapters and sections</summary><ol>'
                f"{''.join(f'<li>{row}</li>' for row in rows)}</ol></details></nav>")

    def contents(self) -> bytes:
        """index.html: what kvref is, in the words of the README; then all pages that are texts."""
        intro = (self.checkout / "README.md").read_text(encoding="utf-8").partition("\n    # ")[0]
        others = {path: about for path, about in self.about.items() if path not in self.chapters}
        chapters = [f"- **[{about.title}]({path})** <span class=minutes>{about.minutes}</span><br>{about.sentence}"
                    for path, about in self.about.items() if path not in others]
        teaching = [f"- [{about.title}]({path}) {about.sentence}" for path, about in others.items()
                    if path.endswith(".md")]
        solutions = [f"[{Path(path).stem}]({path})" for path in others if path.endswith(".ipynb")]
        rows = [intro, "", "## Chapters", "", READING, "", *chapters, "", *TEACHING * bool(teaching), *teaching, "",
                "## Solutions", "", "One way to solve each exercise. Try first: chapter " + " · ".join(solutions), "",
                "## More", "", *MORE]
        return self.text("index.md", [new_markdown_cell("\n".join(rows))])


# ---- a folder ------------------------------------------------------------------------------------

def build(say: Callable[[str], object] = print) -> dict[str, bytes]:
    """Every file of the edition, by its path in it."""
    edition = Edition(reader.notebooks().parent)
    files = {"style.css": (PARTS / "style.css").read_bytes(), "index.html": edition.contents()}
    done: set[str] = set()
    while waiting := [path for path in edition.wanted if path not in done]:
        for path in waiting:
            done.add(path)
            files[edition.address(path)] = edition.page(path)
            if path in edition.about:
                say(f"[{len(done):2d}/{len(edition.about)}] {edition.address(path)}")
    say(f"and {len(files) - len(edition.about)} other pages and files")
    return dict(sorted(files.items()))


def check(folder: Path) -> list[str]:
    """The files in this folder that an earlier edition has made. LabError where there are others alone."""
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return []
    if not (folder / OURS).is_file():
        raise reader.LabError(f"{folder} is no empty folder, and holds no edition of the course; choose another one.")
    says, _, names = (folder / OURS).read_text(encoding="utf-8", errors="replace").partition("\n")
    if says != OURS_SAYS.strip():
        raise reader.LabError(f"{folder / OURS} is not of an edition; choose another folder.")
    return [name for name in names.split("\n") if name and not name.startswith("/") and ".." not in name.split("/")
            and not any((folder / above).is_symlink() for above in Path(name).parents[:-1])]


def write(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write them where nothing of somebody else's is in the way. Returns one sentence."""
    old = check(folder)
    for name in files:
        if os.path.lexists(folder / name) and name not in old:
            raise reader.LabError(f"{folder / name} is not of the edition there; move it, or choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OURS).write_text(OURS_SAYS + "\n".join(sorted({*old, *files})) + "\n", encoding="utf-8")
    changed = [name for name in files if not (folder / name).is_file() or (folder / name).read_bytes() != files[name]]
    for name in changed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)         # if it has become a link, what it leads to stays
        (folder / name).write_bytes(files[name])
    gone = [name for name in old if name not in files]
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    (folder / OURS).write_text(OURS_SAYS + "\n".join(sorted(files)) + "\n", encoding="utf-8")
    return (f"The course is in {folder}: {len(changed)} of {len(files)} files written, {len(gone)} removed. "
            f"Open {folder / 'index.html'}.")
