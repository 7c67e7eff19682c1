"""The course in two editions from one source: the reader's copy in JupyterLab, and pages of HTML. Both are opened.

The pages are made once for all tests of this file. They are read with html.parser, and opened in Chromium where there
is one.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kvref.lab import html, questions, reader
from kvref.lab.__main__ import main
from tests.browser import TOO_WIDE, Browser

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = CHAPTERS + sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), "")
WIDTHS = (1366, 390)        # a laptop and a phone
LISTINGS = 8
FETCHED = {"src", "srcset", "poster", "data", "background", "action", "formaction", "xlink:href", "manifest", "ping"}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """What a page holds, as far as the tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str]]] = []        # tags that have not been closed
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.styles = ""
        self.folded: list[bool] = []                            # for each output, whether it is in a fold
        self.words: list[tuple[str, bool]] = []                 # text, and whether it is in a fold
        self.wrong: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is not closed" for tag, _ in self.open]

    def in_a_fold(self) -> bool:
        return any(tag == "details" and attributes.get("class") == "answer" for tag, attributes in self.open)

    def handle_starttag(self, tag: str, pairs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in pairs}
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag in ("a", "area") and "href" in attributes else []
        self.fetched += [value for name, value in attributes.items() if name in FETCHED or name == "href" and tag not in ("a", "area")]
        self.styles += attributes.get("style", "")
        self.wrong += [f"{name} runs code" for name in attributes if name.startswith("on")]
        if attributes.get("class") == "output":
            self.folded.append(self.in_a_fold())
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1][0] != tag:
            self.wrong.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "style":
            self.styles += data
        elif data.strip():
            self.words.append((data, self.in_a_fold()))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def edition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m kvref.lab html` makes."""
    folder = tmp_path_factory.mktemp("edition") / "course"
    assert main(["html", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def pages(edition: Path) -> dict[str, Page]:
    return {path.relative_to(edition).as_posix(): Page(path.read_text()) for path in sorted(edition.rglob("*.html"))}


def page_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix(".html").as_posix()


def cells(path: Path) -> list[Any]:
    return list(nbformat.read(path, 4).cells)


# --- pages -----------------------------------------------------------------------------------------------------------

def test_every_text_has_a_page_and_the_contents_lead_to_it(pages: dict[str, Page]) -> None:
    texts = [page_of(path) for path in [*NOTEBOOKS, *(ROOT / "notebooks").glob("*.md"), ROOT / "README.md"]]
    assert len(texts) > 20 and set(texts) <= set(pages)
    assert set(texts) <= set(pages["index.html"].links)
    shown = " ".join(text for text, _ in pages["index.html"].words)
    for path in CHAPTERS:
        title, why, time = cells(path)[0].source.split("\n\n")[:3]
        assert title.removeprefix("# ").split(" · ")[1] in shown
        assert (re.search(r"\d+ minutes", cells(path)[0].source) or [""])[0] in shown
        assert re.split(r"[*`.?!:,(]", why)[0] in re.sub(r"\s+", " ", shown) or "\n" in why
    assert "notebooks/pictures/sawtooth.svg" in pages["index.html"].fetched


def test_a_page_says_what_it_is_and_fits_a_phone(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert page.wrong == [], name
        assert page.all("html") == [{"lang": "en"}] and len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1, name
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta"), name
        assert {"charset": "utf-8"} in page.all("meta")
        assert len(page.ids) == len(set(page.ids)), name
    titles = [next(text for text, _ in page.words) for page in pages.values()]
    assert len(set(titles)) == len(titles)


def test_all_that_a_notebook_says_is_on_its_page(pages: dict[str, Page]) -> None:
    def words(text: str) -> str:
        return re.sub(r"\s+", "", text)
    for path in NOTEBOOKS:
        shown = words("".join(text for text, _ in pages[page_of(path)].words))
        for cell in cells(path):
            if cell.cell_type == "code" and "predict(" not in cell.source:
                assert words(cell.source) in shown, (path.name, cell.source)
                for output in cell.outputs:
                    assert words(output.get("text", "")) in shown, (path.name, output)
            elif cell.cell_type == "markdown":
                for heading in re.findall(r"^#+ (.+)$", cell.source, re.M):
                    assert words(heading.replace("`", "").replace("*", "")) in shown, (path.name, heading)


def test_every_picture_can_be_read_aloud(pages: dict[str, Page]) -> None:
    pictures = [(name, picture) for name, page in pages.items() for picture in page.all("img")]
    assert len(pictures) > 40
    assert [(name, picture) for name, picture in pictures if len(picture.get("alt", "").split()) < 5] == []
    figures = [picture["alt"] for _, picture in pictures if picture["src"].startswith("data:image/png")]
    assert [alt for alt in figures if not re.match(r"Figure: .+ .+ .+ .+ .+\. The table before it", alt)] == []


def brightness(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_colour_of_text_can_be_read_on_every_ground(edition: Path) -> None:
    style = (edition / "style.css").read_text()
    named = dict(re.findall(r"--([\w-]+): (#\w{6})", style))
    grounds = [named[name] for name in ("paper", "shade", "ask", "answer")]
    inks = {named.get(ink, ink) for ink in re.findall(r"[{; ]color: (?:var\(--)?(#\w{6}|[\w-]+)", style)} | {named["text"]}
    assert len(inks) > 10
    for ink in inks:
        for ground in grounds:
            assert brightness(ground) > brightness(ink)
            assert (brightness(ground) + 0.05) / (brightness(ink) + 0.05) >= 4.5, (ink, ground)


# --- links -----------------------------------------------------------------------------------------------------------

def test_every_link_and_every_anchor_leads_somewhere_in_the_edition(edition: Path, pages: dict[str, Page]) -> None:
    seen = 0
    for name, page in pages.items():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme in ("https", "data"):
                continue
            seen += 1
            assert not parts.scheme and not parts.netloc and not parts.path.startswith("/"), (name, link)
            there = Path(os.path.normpath(edition / Path(name).parent / unquote(parts.path))) if parts.path else edition / name
            assert there.is_relative_to(edition) and there.is_file(), (name, link)
            if parts.fragment:
                assert unquote(parts.fragment) in pages[there.relative_to(edition).as_posix()].ids, (name, link)
    assert seen > 1000


def test_no_page_asks_for_anything_outside(edition: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert [target for target in page.fetched if urlsplit(target).scheme not in ("", "data") or target.startswith("//")] == [], name
        assert not page.all("script") and not page.all("iframe") and not page.all("base"), name
        assert "http-equiv" not in {key for meta in page.all("meta") for key in meta}
        assert "url(" not in page.styles and "@import" not in page.styles, name
    for style in edition.rglob("*.css"):
        assert not re.search(r"url\(|@import|image-set|src\(", style.read_text())
    for picture in edition.rglob("*.svg"):
        drawing = Page(picture.read_text())
        assert not drawing.all("script") and not drawing.all("image") and not drawing.all("foreignobject")
        assert not re.search(r"url\((?!#)|@import", picture.read_text())
        assert [target for target in drawing.fetched if not target.startswith("#")] == []


# --- predictions -----------------------------------------------------------------------------------------------------

def asks(cell: Any) -> bool:
    return cell.cell_type == "code" and re.search(r"^predict\(", cell.source, re.M) is not None


def outputs_that_answer(path: Path) -> Iterator[bool]:
    """For each output of a notebook, questions apart, whether a reader should have predicted it.

    That is what comes after a question, up to the text that says which letter is right; where none does, up to the
    first text. A text asks if its last paragraph begins with Predict, and the next cell does not ask instead.
    """
    there = cells(path)
    asked = answered = False
    for place, cell in enumerate(there):
        if cell.cell_type == "markdown":
            ahead = []
            for later in there[place:]:
                if asks(later):
                    break
                ahead.append(later.source)
                if later is not cell and re.search("^#", later.source, re.M):
                    break
            verdict_is_to_come = not re.search("^#", cell.source, re.M) and any(text.startswith("It is (") for text in ahead[1:])
            if asked and answered and not (verdict_is_to_come and not cell.source.startswith("It is (")):
                asked = False
            if cell.source.split("\n\n")[-1].startswith("**Predict"):
                asked, answered = True, False
        elif asks(cell):
            asked, answered = True, False
        else:
            for _ in cell.outputs:
                answered = True
                yield asked


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_what_answers_a_prediction_is_folded_and_nothing_else(path: Path, pages: dict[str, Page]) -> None:
    page = pages[page_of(path)]
    assert page.folded == list(outputs_that_answer(path))
    assert any(page.folded) and not all(page.folded)
    for text, folded in page.words:
        assert folded or not re.match(r"\s*It is \(\w\)", text), text
    folds = [attributes for attributes in page.all("details") if attributes.get("class") == "answer"]
    assert folds and not any("open" in attributes for attributes in folds)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_question_has_a_fold_for_each_letter_with_its_verdict(path: Path, pages: dict[str, Page]) -> None:
    def words(text: str) -> str:
        return re.sub(r"[\s`*]+", "", text)
    page = pages[page_of(path)]
    shown = words("".join(text for text, _ in page.words))
    asked = [node for cell in cells(path) if asks(cell) for node in ast.walk(ast.parse(re.sub("^%", "#", cell.source, flags=re.M)))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "predict"]
    for call in asked:
        id, question, options = map(ast.literal_eval, call.args)
        answer = questions.answers(id.partition("-")[0])[id]
        for letter, text in options.items():
            assert words(f"({letter}) {text}{questions.verdict(letter, answer)}") in shown, (id, letter)
        assert words(question) in shown
    assert sum(attributes.get("class") == "predict" for attributes in page.all("section")) == len(asked) > 0
    assert not re.search("Yourprediction:put", shown)


# --- notebooks that a teacher may have added ------------------------------------------------------------------------

@pytest.fixture
def bare() -> html.Edition:
    return html.Edition(ROOT)


HOSTILE = '<script>alert(1)</script><img src="data:," onerror="alert(1)"> ${title} $kind &amp; &lt;b>'


def test_markup_in_code_and_in_printed_text_is_shown_as_it_is(bare: html.Edition) -> None:
    outputs = [new_output("stream", text=HOSTILE), new_output("execute_result", data={"text/plain": HOSTILE}),
               new_output("error", ename="<E>", evalue="<v>", traceback=[HOSTILE])]
    page = Page(bare.text("x.ipynb", [new_markdown_cell("# `<b>` & $x"), new_code_cell(HOSTILE, outputs=outputs)]).decode())
    assert page.wrong == [] and not page.all("script") and not page.all("img")
    shown = re.sub(r"\s", "", "".join(text for text, _ in page.words))
    assert shown.count(re.sub(r"\s", "", HOSTILE)) == 4 and next(text for text, _ in page.words) == "<b> & $x · kvref"


def test_what_would_run_or_fetch_is_left_out_of_html_in_outputs_and_texts(bare: html.Edition) -> None:
    live = HOSTILE + '<iframe src="//x"></iframe><style>@import "//x"</style><p onclick="x()">stays</p>'
    cells = [new_markdown_cell(f"# T\n\n{live}"), new_code_cell("1", outputs=[new_output("display_data", data={"text/html": live})])]
    page = Page(bare.text("x.ipynb", cells).decode())
    assert page.wrong == [] and not page.all("script") and not page.all("iframe") and "@import" not in page.styles
    assert len(page.all("img")) == 2 and sum(text == "stays" for text, _ in page.words) == 2


@pytest.mark.parametrize("text", ["[x](javascript:alert(1))", "[x](//elsewhere/y)", "[x](../elsewhere)", "[x](nothing.md)",
                                  "![x](https://elsewhere/x.png)", "![x](//elsewhere)"])
def test_a_link_that_leads_nowhere_or_fetches_is_an_error_that_names_it(text: str, bare: html.Edition) -> None:
    with pytest.raises(reader.LabError, match=r"x.ipynb links to .*(alert|elsewhere|nothing)"):
        bare.text("x.ipynb", [new_markdown_cell(text)])


@pytest.mark.parametrize("cell", [new_code_cell("predict("), new_code_cell("if x:\n    %time predict\nf?"),
                                  new_code_cell("1", outputs=[new_output("display_data", data={})])])
def test_cells_that_are_no_python_or_show_nothing_have_a_page(cell: Any, bare: html.Edition) -> None:
    assert Page(bare.text("x.ipynb", [cell]).decode()).wrong == []


def test_other_files_in_the_checkout_stop_nothing(tmp_path: Path) -> None:
    for name in ("README.md", "kvref/resp.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"# Title")
    for name, cells in (("empty", []), ("untitled", [new_code_cell("print(1)")])):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(nbformat.writes(new_notebook(cells=cells)))
    (tmp_path / "kvref" / "junk.bin").write_bytes(b"\xff\xfe\0")
    (tmp_path / "kvref" / "dangling").symlink_to(tmp_path / "nowhere")
    html.write(tmp_path / "kvref" / "pages", {"index.html": b"an edition"})
    edition = html.Edition(tmp_path)
    assert [about.title for about in edition.about.values()] == ["untitled"]
    inside = Page(edition.page("kvref").decode())
    assert [text for text, _ in inside.words if text in ("resp.py", "junk.bin", "dangling", "pages/")] == ["junk.bin", "resp.py"]
    assert Page(edition.page("kvref/junk.bin").decode()).wrong == []


# --- the folder ------------------------------------------------------------------------------------------------------

def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_with_something_else_in_it_is_refused_and_untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text("mine")
    assert main(["html", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err == f"kvref.lab: {tmp_path} is no empty folder, and holds no edition of the course; choose another one.\n"
    assert said.out == "" and everything(tmp_path) == {"index.html": b"mine"}


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("mine")
    assert main(["html", str(tmp_path / "notes")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and (tmp_path / "notes").read_text() == "mine"


def test_a_new_edition_takes_the_place_of_the_old_one_and_of_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "course"
    html.write(folder, {"index.html": b"one", "a/old.html": b"old", "a/same.html": b"same"})
    (folder / "a" / "notes").write_text("mine")
    then = os.stat(folder / "a" / "same.html").st_mtime_ns
    said = html.write(folder, {"index.html": b"two", "a/same.html": b"same", "b.html": b"new"})
    assert said.startswith(f"The course is in {folder}: 2 of 3 files written, 1 removed.")
    assert os.stat(folder / "a" / "same.html").st_mtime_ns == then
    there = everything(folder)
    ours = there.pop("edition.txt").decode()
    assert there == {"index.html": b"two", "a/same.html": b"same", "b.html": b"new", "a/notes": b"mine"}
    assert ours.splitlines()[1:] == ["a/same.html", "b.html", "index.html"]


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to a folder"])
def test_what_is_in_the_way_of_a_page_stays_and_nothing_is_written(kind: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "course", tmp_path / "elsewhere"
    html.write(folder, {"index.html": b"one"})
    elsewhere.mkdir()
    (elsewhere / "page.html").write_text("mine")
    match kind:
        case "file":
            (folder / "a").mkdir()
            (folder / "a" / "page.html").write_text("mine")
        case "folder":
            (folder / "a" / "page.html").mkdir(parents=True)
        case "link to a file":
            (folder / "a").mkdir()
            (folder / "a" / "page.html").symlink_to(elsewhere / "page.html")
        case "link to a folder":
            (folder / "a").symlink_to(elsewhere)
    before = everything(tmp_path)
    with pytest.raises(reader.LabError, match="is not of the edition"):
        html.write(folder, {"a/page.html": b"new", "b.html": b"new", "index.html": b"two"})
    assert everything(tmp_path) == before and (folder / "a").is_symlink() == (kind == "link to a folder")


def test_a_page_that_was_made_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    html.write(tmp_path / "course", {"index.html": b"one"})
    (tmp_path / "course" / "index.html").unlink()
    (tmp_path / "course" / "index.html").symlink_to(tmp_path / "mine")
    html.write(tmp_path / "course", {"index.html": b"two"})
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "course" / "index.html").read_bytes() == b"two"


def test_what_the_list_of_files_says_of_places_outside_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    html.write(tmp_path / "course", {"index.html": b"one"})
    with (tmp_path / "course" / "edition.txt").open("a") as file:
        file.write(f"../mine\n{tmp_path}/mine\n")
    html.write(tmp_path / "course", {"index.html": b"two"})
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("theirs", [b"Second edition\nmine\n", b"\xff\xfe", b""])
def test_a_list_that_is_somebody_else_s_is_not_taken_for_ours(theirs: bytes, tmp_path: Path) -> None:
    (tmp_path / "edition.txt").write_bytes(theirs)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(reader.LabError, match="edition.txt is not of an edition"):
        html.write(tmp_path, {"index.html": b"one"})
    assert everything(tmp_path) == {"edition.txt": theirs, "mine": b"mine"}


@pytest.mark.parametrize("files", [{"a/page.html": b"new"}, {"index.html": b"new"}], ids=["written", "removed"])
def test_a_folder_that_was_made_a_link_is_not_followed(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    html.write(tmp_path / "course", {"a/page.html": b"one"})
    (tmp_path / "course" / "a").rename(tmp_path / "old")
    (tmp_path / "elsewhere" / "page.html").write_text("mine")
    (tmp_path / "course" / "a").symlink_to(tmp_path / "elsewhere")
    if "a/page.html" in files:
        with pytest.raises(reader.LabError, match="is not of the edition"):
            html.write(tmp_path / "course", files)
    else:
        html.write(tmp_path / "course", files)
    assert (tmp_path / "elsewhere" / "page.html").read_text() == "mine"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "course").symlink_to(tmp_path / "there")
    for content in (b"one", b"two"):
        html.write(tmp_path / "course", {"a/page.html": content})
    assert (tmp_path / "there" / "a" / "page.html").read_bytes() == b"two"


def test_an_edition_that_was_interrupted_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        if path.name == "b.html":
            raise OSError(28, "No space left on device", str(path))
        return len(data) if path.open("wb").write(data) else 0
    with monkeypatch.context() as patched, pytest.raises(OSError):
        patched.setattr(Path, "write_bytes", full)
        html.write(tmp_path / "course", {"a.html": b"a", "b.html": b"b"})
    html.write(tmp_path / "course", {"a.html": b"A", "b.html": b"b"})
    assert {name for name in everything(tmp_path / "course")} == {"a.html", "b.html", "edition.txt"}


def test_the_same_source_gives_the_same_bytes(edition: Path) -> None:
    """In another process, whose hashes differ."""
    some = ["notebooks/05-eviction.ipynb", "notebooks/07-rdb-byte-by-byte.ipynb", "README.md", "kvref/resp.py", "kvref/sim"]
    script = ("import sys, hashlib; from pathlib import Path; from kvref.lab import html\n"
              f"edition = html.Edition(Path({str(ROOT)!r}))\n"
              f"files = {{edition.address(path): edition.page(path) for path in {some!r}}} | {{'index.html': edition.contents()}}\n"
              "for name, data in files.items(): print(name, hashlib.sha256(data).hexdigest())")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONHASHSEED": "77"})
    said = dict(line.split() for line in done.stdout.splitlines())
    assert len(said) == 6
    assert said == {name: hashlib.sha256((edition / name).read_bytes()).hexdigest() for name in said}


# --- opened ----------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_pages_open_in_a_browser_quietly_and_no_wider_than_their_window(edition: Path, pages: dict[str, Page], tmp_path: Path) -> None:
    """Every text, and of the listings, which are of one piece, one in LISTINGS: 1 opens them all."""
    problems, widths = [], list(WIDTHS)
    sources = {name for name, page in pages.items() if {"class": "source"} in page.all("body")}
    assert len(pages) > len(sources) + 30 > 200
    with Browser(CHROMIUM, tmp_path) as browser:
        for name in [*sorted(pages.keys() - sources), *sorted(sources)[::LISTINGS]]:
            problems += [f"{name}: {problem}" for problem in browser.open((edition / name).as_uri()).problems]
            widths.reverse()                    # a page is first laid out as wide as the last one was
            for width in (*widths, 320) if name not in sources else (390,):     # a listing is of one piece
                content, window = browser.widths(width)
                if window != width or content > window:
                    problems.append(f"{name}: {content} of {window} pixels, {browser.evaluate(TOO_WIDE)}")
    assert problems == []


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_readers_copy_opens_in_jupyterlab(tmp_path: Path) -> None:
    """Started as a reader does, without a browser; asked for the first chapter; ended by Ctrl-C."""
    pytest.importorskip("jupyterlab")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    terminal, keyboard = os.openpty()       # as a reader has it: there JupyterLab listens for Ctrl-C
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    lab = subprocess.Popen([sys.executable, "-m", "kvref.lab", "open", str(tmp_path / "course"), "--no-browser", "--port", str(port)],
                           cwd=ROOT, env={**os.environ, **own, "PYTHONUNBUFFERED": "1"}, text=True, stdin=keyboard,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    patience = threading.Timer(120, lab.kill)
    patience.start()
    try:
        assert lab.stdout
        said = ""
        for line in lab.stdout:
            said += line
            if found := re.search(rf"http://(?:127\.0\.0\.1|localhost):{port}(/lab/tree/\S*00-start-here\.ipynb)\?token=(\w+)", line):
                break
        else:
            pytest.fail(f"JupyterLab ended:\n{said}")
        address, token = f"http://127.0.0.1:{port}", found[2]
        while lab.poll() is None and not listens(port):     # it says where it is just before it is there
            os.sched_yield()
        with urllib.request.urlopen(f"{address}{found[1]}?token={token}", timeout=60) as answer:
            assert answer.status == 200 and "<title>JupyterLab</title>" in answer.read().decode()
        with urllib.request.urlopen(f"{address}/api/contents/00-start-here.ipynb?token={token}", timeout=60) as answer:
            chapter = json.load(answer)
        assert chapter["path"] == "00-start-here.ipynb" and chapter["writable"]
        theirs = [cell for cell in chapter["content"]["cells"] if cell["cell_type"] == "code"]
        assert len(theirs) > 10 and not any(cell["outputs"] for cell in theirs)
        lab.send_signal(signal.SIGINT)
        said = lab.stdout.read()
        assert lab.wait() == 0 and "Shutting down" in said
    finally:
        patience.cancel()
        lab.kill()
        lab.communicate()
        os.close(terminal)
        os.close(keyboard)
