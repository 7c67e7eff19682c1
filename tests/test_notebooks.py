"""What holds for every notebook of the course; their outputs are compared by nbval, in the same run of pytest."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kvref.command_table import commands
from kvref.directives import DIRECTIVES
from kvref.lab import judging, normalise, questions, reader
from kvref.lab.modules import modules
from kvref.sim import World
from tests import chapters
from tests.test_structure import MODULES

ROOT = Path(__file__).parent.parent
NOTEBOOKS = normalise.course()
CHAPTERS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]

CODE_CELLS_MAX = 40
WORDS_MAX = 2500
EXEMPT_MAX = {"03": 0.5, "13": 0.5}     # of the code cells; elsewhere a quarter


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def cells(path: Path, kind: str = "code") -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def prose(path: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def is_figure(output: Any) -> bool:
    return "image/png" in output.get("data", {})


@each(NOTEBOOKS)
def test_every_cell_was_run_in_order_and_without_an_error_that_is_not_meant(path: Path) -> None:
    code = cells(path)
    assert code and [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        raised = [output.ename for output in cell.outputs if output.output_type == "error"]
        assert not raised or "raises-exception" in tags(cell), cell.source


@each(NOTEBOOKS)
def test_a_notebook_is_normalised(path: Path) -> None:
    assert normalise.check(path) == []


@each(CHAPTERS)
def test_a_chapter_can_be_read_in_one_hour(path: Path) -> None:
    assert len(cells(path)) <= CODE_CELLS_MAX
    assert len([word for word in prose(path).split() if re.search(r"\w", word)]) <= WORDS_MAX


@each(CHAPTERS)
def test_what_is_not_compared_is_real_and_its_claim_is_asserted_by_the_next_cell(path: Path) -> None:
    code = cells(path)
    exempt = [number for number, cell in enumerate(code) if "nbval-ignore-output" in tags(cell)]
    assert len(exempt) <= EXEMPT_MAX.get(path.name[:2], 0.25) * len(code)
    for number in exempt:
        claim = code[number + 1]
        assert "real" in tags(code[number]) and "assert " in claim.source and claim.source.startswith("%%real")
        assert "nbval-ignore-output" not in tags(claim) and claim.outputs
    for cell in code:
        assert ("real" in tags(cell)) == cell.source.startswith("%%real"), cell.source
        assert "nbval-skip" not in tags(cell), cell.source


@each(CHAPTERS)
def test_no_figure_stands_without_the_table_of_its_numbers(path: Path) -> None:
    code = cells(path)
    for number in [number for number, cell in enumerate(code) if any(map(is_figure, cell.outputs))]:
        around = code[max(0, number - 1):number + 1]
        before = [output for cell in around for output in cell.outputs if not is_figure(output)]
        shown = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in before)
        assert len(shown.splitlines()) >= 3, code[number].source


@each(CHAPTERS)
def test_a_chapter_has_its_parts_in_their_order(path: Path) -> None:
    headings = re.findall(r"^##? (.+)$", prose(path), re.M)
    assert headings[0].startswith(path.name[:2])
    wanted = ["By the end you can", "In real Redis", "What you have shown", "Synopsis", "Check yourself", "Next"]
    assert [heading for heading in headings if heading in wanted] == wanted
    assert re.search(r"\*\*Time:\*\* \d+ minutes", prose(path)) and "**Predict.**" in prose(path)


@each(CHAPTERS)
def test_the_parts_of_a_chapter_look_the_same_everywhere(path: Path) -> None:
    text = prose(path)
    assert re.search(r"^\*\*Time:\*\* \d+ minutes\. \*\*What you need:\*\* ", text, re.M)
    assert "**A common misconception:** *" in text
    exercises = text.partition("\n## Exercises\n")[2].partition("\n## Check yourself\n")
    assert exercises[0].startswith("\n`judge` says what is wrong and gives a hint each time. The [solutions]"
                                   f"(../notebooks/solutions/{number(path)}.ipynb) are for afterwards.\n")
    titles = re.findall(r"^\*\*(\d) · [^*]+\*\* \(\d+ minutes\)", exercises[0], re.M)
    assert titles == [str(each) for each in range(1, len(judging.exercises(number(path))) + 1)]
    assert exercises[2].startswith("\nAnswer aloud, then open the answer.\n\n<details><summary>1. ")
    asked = re.findall(r"<summary>(\d)?", exercises[2])
    assert asked == [str(each) for each in range(1, len(asked) + 1)]


def test_a_term_is_introduced_in_bold_once_in_the_whole_course() -> None:
    """Later chapters remind of it in italics. What ends in a colon or a full stop is a label, or a whole sentence."""
    home: dict[str, str] = {}
    for path in CHAPTERS:
        text = re.sub(r"<details>.*?</details>", "", prose(path), flags=re.S)
        for term in re.findall(r"(?<!\*)\*\*([A-Za-z][^*]*?[^*:.])\*\*", text):
            assert home.setdefault(term.lower(), number(path)) == number(path), term


@each(CHAPTERS)
def test_every_link_leads_somewhere(path: Path) -> None:
    def anchors(there: Path) -> set[str]:
        return {heading.replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", prose(there), re.M)}
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if target.startswith("#"):
            assert target[1:] in anchors(path)
        elif not target.startswith("http"):
            file, anchor = Path(target.partition("#")[0]), target.partition("#")[2]
            assert (path.parent / file).exists(), target
            assert not anchor or anchor in anchors(path.parent / file), target
            assert file.parts[0] == ".." or file in set(reader._files(path.parent)), f"the reader's copy lacks {target}"


def test_the_first_chapter_names_the_chapters_that_exist_and_no_others() -> None:
    rows = re.findall(r"^\| (\d\d[ab]?) \| (.+) \|$", prose(ROOT / "notebooks" / "00-start-here.ipynb"), re.M)
    assert [chapter for chapter, _ in rows] == [*(f"{number:02d}" for number in range(11)), "11a", "11b", "12", "13", "14"]
    assert {chapter for chapter, _ in rows} == {number(path) for path in CHAPTERS}
    assert all(f"]({chapter}-" in title for chapter, title in rows[1:])


@each(CHAPTERS)
def test_no_chapter_that_exists_is_said_to_be_in_preparation(path: Path) -> None:
    there = {number(path)[:2] for path in CHAPTERS}
    for part in prose(path).split("\n\n"):
        if "in preparation" in part and not part.startswith("|"):
            named = re.findall(r"[Cc]hapter (\d\d)", re.sub(r"\[[^]]*\]\([^)]*\)", "", part))
            assert not there & set(named), part


def test_the_map_of_the_package_is_complete() -> None:
    """A package that only holds others, and says nothing of itself, is no row."""
    shown = {row[1] for row in modules().rows}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kvref").rglob("*.py") if path.stat().st_size}
    assert shown == there


def test_the_map_leads_to_the_files_and_begins_with_the_tour_of_the_readme() -> None:
    rows = modules().rows
    assert all((ROOT / "notebooks" / row[1].target).is_file() for row in rows)
    tour = (ROOT / "README.md").read_text().split("## A tour of the files")[1].split("\n## ")[0]
    wanted = re.findall(r"\]\((kvref/\S+\.py)\)", tour)
    assert [row[1] for row in rows if row[0]] == wanted and [row[0] for row in rows[:len(wanted)]] == [
        number for number, _ in enumerate(wanted, 1)]


# --- questions and exercises -----------------------------------------------------------------------------------------

def calls(path: Path, function: str) -> Iterator[tuple[Any, ast.Call]]:
    """The calls predict(...) or judge(...) of a notebook, each with its cell."""
    for cell in cells(path):
        if cell.source.startswith("%"):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                yield cell, node


def number(path: Path) -> str:
    return path.name.partition("-")[0].partition(".")[0]


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@each(CHAPTERS)
def test_every_wrong_option_is_a_misconception_with_the_place_that_refutes_it(path: Path) -> None:
    headings = re.findall(r"^#+ (.+)$", prose(path), re.M)
    answers = questions.answers(number(path))
    asked = [(cell, *map(ast.literal_eval, call.args), {k.arg: ast.literal_eval(k.value) for k in call.keywords})
             for cell, call in calls(path, "predict")]
    assert [id for _, id, *_ in asked] == list(answers) and asked
    for cell, id, question, options, named in asked:
        answer = answers[id]
        assert named == {"mine": None} and "Your prediction: " in printed(cell) and question
        assert set(answer) == {"right", "why", *options} - {answer["right"]} | {"right"}, id
        for letter in set(options) - {answer["right"]}:
            name, why_not, where = answer[letter]
            assert name and why_not and where in headings, (id, letter, where)


@each(CHAPTERS)
def test_every_exercise_is_unsolved_and_gets_a_hint(path: Path) -> None:
    judged = [(cell, ast.literal_eval(call.args[0])) for cell, call in calls(path, "judge")]
    assert [id for _, id in judged] == list(judging.exercises(number(path)))
    assert 3 <= len(judged) <= 5 and len(re.findall(r"\((?:5|10|15|20|30|45|60) minutes\)", prose(path))) == len(judged)
    for cell, _ in judged:
        assert re.fullmatch(r"Not yet\. There is nothing to judge yet\.\nHint 1 of 3: .+\n", printed(cell)), cell.source


@each(CHAPTERS)
def test_every_solution_is_right(path: Path) -> None:
    solutions = path.parent / "solutions" / f"{number(path)}.ipynb"
    judged = [(cell, ast.literal_eval(call.args[0])) for cell, call in calls(solutions, "judge")]
    assert [id for _, id in judged] == list(judging.exercises(number(path)))
    assert all(printed(cell) == "Solved.\n" for cell, _ in judged)


@each(CHAPTERS)
def test_what_is_no_solution_gets_a_hint_and_no_traceback(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def nonsense(*arguments: Any, **options: Any) -> Any:
        return None
    for id in judging.exercises(number(path)):
        for wrong in (None, 7, "x", nonsense, (nonsense, nonsense), object, lambda: None, b""):
            judging.judge(id, wrong)
            assert re.fullmatch(r"Not yet\. .+\nHint \d of 3: .+\n", capsys.readouterr().out, re.S), (id, wrong)


# --- what they name exists -------------------------------------------------------------------------------------------

REDIS_SYMBOLS = (ROOT / "tests" / "redis_symbols.txt").read_text().split("---\n")[1].split()
PROGRAMS = {"redis-cli", "redis-server", "redis-benchmark", "redis-check-aof", "redis-check-rdb", "redis-py", "strace",
            "kvref-server", "my-course"}
POLICIES = {f"{which}-{by}" for which in ("allkeys", "volatile") for by in ("lru", "lfu", "random")} | {"volatile-ttl"}


def known_names(path: Path) -> set[str]:
    """Identifiers that a chapter may put between backticks: of kvref, of INFO, of Redis, of Python, its own."""
    world = World(seed=1)
    world.start()
    info = world.connect()("INFO", "everything").decode()
    names = {word for module in MODULES.values() for word in re.findall(r"[A-Za-z_]\w+", module.text)}
    own = {word for cell in cells(path) for text in (cell.source, printed(cell)) for word in re.findall(r"\w+", text)}
    return names | own | set(re.findall(r"^(\w+):", info, re.M)) | set(REDIS_SYMBOLS) | set(dir(builtins))


@each(CHAPTERS)
def test_every_name_exists(path: Path) -> None:
    names = known_names(path) | PROGRAMS
    directives = {*DIRECTIVES, *POLICIES, *PROGRAMS}
    spelled = {row.name.upper() for row in commands()}
    wrong = []
    text = re.sub(r"\[`[^`]+`\]\([^)]+\)", "", prose(path))         # a link's target is looked at elsewhere
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        if re.fullmatch(r"[a-z]+(?:-[a-z0-9]+)+", code):
            wrong += [code] if code not in directives else []
        elif re.fullmatch(r"[\w/]+\.(?:c|h)", code):
            wrong += [code] if code not in REDIS_SYMBOLS else []
        elif re.fullmatch(r"kvref(?:[./]\w+)*(?:\.py)?/?", code):
            target = ROOT / code.replace(".py", "").replace(".", "/")
            wrong += [code] if not (target.exists() or target.with_suffix(".py").exists()
                                    or code.split(".")[-1] in names) else []
        elif re.fullmatch(r"[A-Z]{2,}", code):
            wrong += [code] if code not in spelled and code not in names else []
        elif re.fullmatch(r"[A-Za-z_][\w.]*(?:\(\))?", code):
            wrong += [code] if any(part not in names for part in code.removesuffix("()").split(".")) else []
    assert not wrong


CLAIMS = {                              # the sentences that the course puts to the test, and the chapters that do
    "key-value, NoSQL, no schema": ["01"],
    "in memory, therefore fast, therefore a cache": ["01", "05"],
    "single-threaded, yet many clients: non-blocking I/O and an event loop": ["03"],
    "snapshot every two seconds, crash one second after: that second is gone": ["06", "11a"],
    "RDB is compact, a binary picture of a point in time": ["06", "07"],
    "AOF logs every write, and replay gives the data set as it was at the last write before the crash": ["09", "11a"],
    "AOF: more granular than snapshots": ["11a"],
    "publishers and subscribers do not know each other; dynamic; to all current subscribers": ["12"],
    "pub/sub: no durability": ["12"],
    "pub/sub: no ordered delivery": ["12"],
    "pub/sub: no complex routing (RabbitMQ, Kafka have it)": ["12"]}


def claims() -> dict[str, list[tuple[str, str, str]]]:
    """The table in chapter 00: sentence -> (chapter, file, heading) of the cells that show the verdict."""
    text = prose(ROOT / "notebooks" / "00-start-here.ipynb")
    rows = re.findall(r"^\| (.+) \| (.+) \| (\[\d\d[ab]?\]\(.+\)) \|$", text, re.M)
    return {sentence: re.findall(r"\[(\d\d[ab]?)\]\((\S+?)#(\S+?)\)(?:, |$)", links) for sentence, _, links in rows}


def test_every_claim_of_the_course_is_a_row_of_the_first_chapter() -> None:
    assert {sentence: list(dict.fromkeys(chapter for chapter, _, _ in places))
            for sentence, places in claims().items() if sentence in CLAIMS} == CLAIMS


def test_every_claim_of_the_course_leads_to_the_cell_that_shows_it() -> None:
    """Behind the heading, and before the next one as high, there is a cell that was run."""
    for chapter, file, anchor in [place for places in claims().values() for place in places]:
        there = nbformat.read(ROOT / "notebooks" / file, as_version=4).cells
        headings = [(at, level, text.replace(" ", "-")) for at, cell in enumerate(there) if cell.cell_type == "markdown"
                    for level, text in re.findall(r"^(#+) (.+)$", cell.source, re.M)]
        at, level = next((at, level) for at, level, text in headings if text == anchor)
        end = next((other for other, other_level, _ in headings if other > at and len(other_level) <= len(level)), None)
        assert file.startswith(chapter + "-") and [text for _, _, text in headings].count(anchor) == 1, (file, anchor)
        assert any(cell.cell_type == "code" and cell.outputs for cell in there[at:end]), (file, anchor)


# --- elsewhere -------------------------------------------------------------------------------------------------------

@each(CHAPTERS)
def test_it_runs_where_sockets_fork_threads_and_matplotlib_are_missing(path: Path) -> None:
    """As in a browser: what is real says so, and all else prints what is committed."""
    run = subprocess.run([sys.executable, "-m", "tests.chapters", "run", str(path)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_chapter_09_alone_runs_two_fifths_of_the_mechanisms() -> None:
    """`python -m tests.chapters unvisited` prints the same list for all of them; it takes minutes."""
    text = chapters.listing([path for path in CHAPTERS if number(path) == "09"])
    print("\n" + text)
    share = re.search(r"(\d+)% of", text)
    assert share and int(share[1]) >= 40
