"""The front of the README: the sawtooth as a picture, and what each mode loses as a table.

    python -m kvref.lab.readme      writes notebooks/pictures/sawtooth.svg, and prints the table for the README

Interface:
  - sweeps()            a Losses for each of the four modes of chapter 00
  - picture(sweeps)     the sawtooth as SVG, the same bytes each time; readable on a light page and on a dark one
  - rows()              `kvref.sim.loss.summary` of all modes
  - table(found)        these as Markdown

A test holds that the README shows what these compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final

from kvref.lab import reader
from kvref.lab.losses import ink
from kvref.sim import loss
from kvref.sim.loss import MODES, Losses, Row, losses

PICTURE: Final = "pictures/sawtooth.svg"            # in the folder of the notebooks
SHOWN: Final = ("no persistence", "save 1 1", "AOF everysec", "AOF always")
LEFT, RIGHT, TOP, HEIGHT, GAP, WIDTH = 90, 730, 96, 56, 22, 960     # of the panels, and of the whole
HEAD: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" \
aria-labelledby="title about">
  <title id="title">How many acknowledged writes does a power loss take?</title>
  <desc id="about">{about}</desc>
  <style>
    text {{ font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; \
font-size: 15px; fill: #1f2933 }}
    .big {{ font-size: 20px; font-weight: 600 }}
    .small {{ font-size: 13px; fill: #52606d }}
    .right {{ text-anchor: end }}
    .middle {{ text-anchor: middle }}
    .grid {{ stroke: #e4e7eb }}
    .axis {{ stroke: #9aa5b1 }}
  </style>
  <rect width="{width}" height="{height}" rx="12" fill="#ffffff"/>
  <text x="28" y="40" class="big">How many of your 1,000 acknowledged writes does a power loss take?</text>
  <text x="28" y="64" class="small">100 writes a second for ten seconds, each answered with OK; \
lost writes, by the instant at which the plug is pulled</text>
"""


def sweeps() -> dict[str, Losses]:
    """Power cuts at every instant, one sweep for each mode of the picture."""
    return {mode: losses(MODES[mode]) for mode in SHOWN}


# ---- the picture ---------------------------------------------------------------------------------

def picture(swept: Mapping[str, Losses]) -> str:
    """A panel for each mode, all on one scale; what loses everything goes out through the top."""
    bottom = TOP + len(swept) * (HEIGHT + GAP) - GAP
    top = 1.2 * max(sweep.worst for sweep in swept.values() if sweep.worst < sweep.losses[-1].acknowledged)
    about = "; ".join(f"{mode}: at worst {sweep.worst:,}" for mode, sweep in swept.items())
    height = bottom + 62
    lines = [HEAD.format(width=WIDTH, height=height, about=escape(about))]
    for number, (mode, sweep) in enumerate(swept.items()):
        lines += _panel(mode, sweep, TOP + number * (HEIGHT + GAP), top)
    seconds = round(sweep.losses[-1].at_ms / 1000)
    lines += [f'  <text x="{_x(second, seconds)}" y="{bottom + 20}" class="small middle">{second}</text>\n'
              for second in range(0, seconds + 1, 2)]
    lines.append(f'  <text x="{(LEFT + RIGHT) / 2:g}" y="{bottom + 42}" class="small middle">'
                 'the plug is pulled after ... seconds</text>\n</svg>\n')
    return "".join(lines)


def _panel(mode: str, sweep: Losses, y: int, top: float) -> Iterator[str]:
    floor, seconds, colour = y + HEIGHT, sweep.losses[-1].at_ms / 1000, ink(mode)
    for second in range(0, round(seconds) + 1, 2):
        yield f'  <path class="grid" d="M{_x(second, seconds)} {y}V{floor}"/>\n'
    line = " ".join(f"{_x(at, seconds)},{_y(lost, floor, top)}" for at, lost in _corners(sweep, top))
    end = _x(_corners(sweep, top)[-1][0], seconds)
    area = f"{line} {RIGHT},{y} {RIGHT},{floor}" if sweep.worst > top else f"{line} {end},{floor}"
    yield f'  <polygon points="{LEFT},{floor} {area}" fill="{colour}" fill-opacity="0.2"/>\n'
    yield f'  <path class="axis" d="M{LEFT} {floor}H{RIGHT}"/>\n'
    yield f'  <polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>\n'
    for lost in (0, 200):
        yield f'  <text x="{LEFT - 8}" y="{_y(lost, floor - 5, top)}" dy="9" class="small right">{lost}</text>\n'
    what = "all of them, up to" if sweep.worst > top else "at worst"
    what = f"{what} {sweep.worst:,}" if sweep.worst else "none"
    yield f'  <text x="{RIGHT + 24}" y="{y + 26}" font-weight="600">{escape(mode)}</text>\n'
    yield f'  <text x="{RIGHT + 24}" y="{y + 46}" class="small">{what}</text>\n'


def _corners(sweep: Losses, top: float) -> list[tuple[float, float]]:
    """(second, lost) where the line begins, bends, leaves the panel and ends."""
    points = [(0.0, 0.0), *((crash.at_ms / 1000, float(crash.lost)) for crash in sweep.losses)]
    inside = [point for point in points if point[1] <= top]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(inside, inside[1:])]
    bends = [point for point, before, after in zip(inside[1:], slopes, slopes[1:]) if abs(after - before) > 1e-6]
    return [inside[0], *bends, inside[-1]]


def _x(second: float, seconds: float) -> str:
    return f"{LEFT + (RIGHT - LEFT) * second / seconds:.5g}"


def _y(lost: float, floor: int, top: float) -> str:
    return f"{floor - HEIGHT * lost / top:.5g}"


# ---- the table -----------------------------------------------------------------------------------

def rows() -> list[Row]:
    """All modes, killed and without power. A few seconds."""
    return loss.summary()


def table(found: Sequence[Row]) -> str:
    """Worst and mean loss of both crashes, whether a start may be refused, and the throughput that is left."""
    lines = ["| mode | kill -9: worst / mean | power loss: worst / mean | oldest lost write | may refuse to start "
             "| throughput |",
             "|---|---|---|---|---|---|"]
    for row in found:
        name = f"`{row.mode}`" if row.mode.startswith("save") else row.mode
        oldest = f"{round(row.worst_s['ext4'], 1):g} s" if row.worst["ext4"] else "-"
        refuse = "yes" if row.may_refuse["ext4"] else "no"
        lines.append(f"| {name} | {_lost(row, 'process')} | {_lost(row, 'ext4')} | {oldest} | {refuse} "
                     f"| {100 * row.price:.0f} % |")
    return "\n".join(lines)


def _lost(row: Row, crash: str) -> str:
    return f"{row.worst[crash]:,} / {row.mean[crash]:,.1f}" if row.worst[crash] else "**0**"


if __name__ == "__main__":
    (reader.notebooks() / PICTURE).write_text(picture(sweeps()), encoding="utf-8")
    print(table(rows()))
