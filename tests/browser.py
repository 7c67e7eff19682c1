"""A Chromium without a window, spoken to over a pipe: the DevTools protocol with the standard library alone.

    with Browser(program, folder_for_its_profile) as browser:
        page = browser.open("file:///...")      # returns when the page has loaded
        page.problems                           # what its console said, what it asked for outside, what failed
        browser.widths(360)                     # (width of the content, width of the window), all <details> open
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SWITCHES = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
            "--remote-debugging-pipe")
PATIENCE_S = 60
MEASURE = """
document.querySelectorAll("details").forEach(fold => fold.open = true);
[document.scrollingElement.scrollWidth, window.innerWidth]
"""
TOO_WIDE = """
[...document.querySelectorAll("main *, header *, footer *")].filter(tag => tag.getBoundingClientRect().right > innerWidth
    && !tag.closest(".scroll, pre, .output")).slice(0, 3).map(tag => tag.outerHTML.slice(0, 120))
"""


class Page(NamedTuple):
    """What happened while a page was opened."""

    url: str
    problems: list[str]


class Browser:
    """One browser with one tab."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self.to = _pipe()
        self.back, theirs_out = _pipe()
        self.pid = os.posix_spawn(program, [program, *SWITCHES, f"--user-data-dir={profile}", "about:blank"], os.environ,
                                  setpgroup=0, file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)])
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            self.session = ""
            self("Browser.close")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.to)
        os.close(self.back)

    def __call__(self, method: str, **parameters: Any) -> Any:
        """One call; its result. Events that come meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url: str) -> Page:
        """Go to a page, and wait until it has loaded."""
        self.events.clear()
        went = self("Page.navigate", url=url)
        problems = [went["errorText"]] if "errorText" in went else []
        if not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            for event in self._messages():
                self.events.append(event)
                if event.get("method") == "Page.loadEventFired":
                    break
        return Page(url, problems + [problem for event in self.events for problem in _problem(event)])

    def widths(self, width: int) -> tuple[int, int]:
        """Of the content and of the window, in a window of this width."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        content, window = self.evaluate(MEASURE)
        return content, window

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def _messages(self) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            message, end, rest = self.buffer.partition(b"\0")
            if end:
                self.buffer = rest
                yield json.loads(message)
                continue
            if not select.select([self.back], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium has said nothing for {PATIENCE_S} s")
            data = os.read(self.back, 1 << 20)
            if not data:
                raise EOFError("Chromium has ended")
            self.buffer += data


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the numbers that Chromium wants for its own."""
    ends = os.pipe()
    above = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return above[0], above[1]


def _problem(event: dict[str, Any]) -> Iterator[str]:
    """What an event says of something that should not be."""
    method, said = event.get("method"), event.get("params", {})
    if method == "Network.requestWillBeSent" and not said["request"]["url"].startswith(("file:", "data:")):
        yield f"asks for {said['request']['url']}"
    elif method == "Network.loadingFailed":
        yield f"did not get something: {said['errorText']}"
    elif method == "Log.entryAdded" and said["entry"]["level"] in ("warning", "error"):
        yield f"console: {said['entry']['text']}"
    elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
        yield f"console: {json.dumps(said)[:200]}"
