"""A headless Chromium, driven over its DevTools pipe with the standard library alone.

Messages are JSON objects that end with a zero byte; the browser reads them from its file
descriptor 3 and answers on 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
"""Seconds until an answer is late; a busy machine starts a browser slowly."""

Json = dict[str, Any]


def find_chromium() -> str | None:
    """The browser's program, None when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A running browser; use it as a context manager.

    Attributes:
        events: what the browser told without being asked, in order.
    """

    def __init__(self, program: str, profile: Path) -> None:
        to_read, self._send = os.pipe()
        self._receive, to_write = os.pipe()
        self._process = _start(program, profile, to_read, to_write)
        os.close(to_read)
        os.close(to_write)
        self._unread = b""
        self._asked = 0
        self.events: list[Json] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        with suppress(OSError, TimeoutError, EOFError):
            self.call("Browser.close")
        os.close(self._send)
        os.close(self._receive)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, session: str | None = None, **arguments: object) -> Json:
        """Ask for something and wait for the answer."""
        self._asked += 1
        question: Json = {"id": self._asked, "method": method, "params": arguments}
        if session is not None:
            question["sessionId"] = session
        os.write(self._send, json.dumps(question).encode() + b"\0")
        for message in self._messages():
            if message.get("id") == self._asked:
                assert "error" not in message, f"{method}: {message}"
                return message["result"]
            self.events.append(message)
        raise EOFError(f"no answer to {method}")

    def wait_for(self, event: str) -> Json:
        """The next event of a kind, also one that came already."""
        for i, message in enumerate(self.events):
            if message.get("method") == event:
                return self.events.pop(i)
        for message in self._messages():
            if message.get("method") == event:
                return message
            self.events.append(message)
        raise EOFError(f"no event {event}")

    def _messages(self) -> Iterator[Json]:
        late = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self._unread:
                text, self._unread = self._unread.split(b"\0", 1)
                yield json.loads(text)
            if not select.select([self._receive], [], [], max(0.0, late - time.monotonic()))[0]:
                raise TimeoutError(f"the browser was silent for {PATIENCE:.0f} s")
            more = os.read(self._receive, 1 << 16)
            if not more:
                raise EOFError("the browser ended")
            self._unread += more


def _start(program: str, profile: Path, to_read: int, to_write: int) -> subprocess.Popen[bytes]:
    """Start the browser with its ends of the pipes as descriptors 3 and 4.

    A shell moves them there: doing so between fork and exec is not safe beside threads.
    """
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    moved = f'exec 3<&{to_read} 4>&{to_write}; exec "$@"'
    return subprocess.Popen(
        ["bash", "-c", moved, "browser", *command],
        pass_fds=(to_read, to_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Page:
    """One tab, which remembers what went wrong in it.

    Args:
        browser: where it opens.
        file: the document.
        width, height: of the window in CSS pixels.
        dark: what the user prefers.
    """

    def __init__(
        self, browser: Browser, file: Path, *, width: int, height: int = 900, dark: bool = False
    ) -> None:
        self._browser = browser
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        browser.events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.prefers(dark=dark)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Page.navigate", url=file.as_uri())
        browser.wait_for("Page.loadEventFired")

    def call(self, method: str, **arguments: object) -> Json:
        """Ask the tab for something."""
        return self._browser.call(method, self._session, **arguments)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, which must be JSON-ready."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def prefers(self, *, dark: bool, media: str = "screen") -> None:
        """Set what the user prefers, and whether the page is printed."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def screenshot(self) -> bytes:
        """A PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def complaints(self) -> list[Json]:
        """Console messages, log entries and uncaught exceptions so far."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self._browser.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextmanager
def opened(browser: Browser, file: Path, **situation: Any) -> Iterator[Page]:
    """A tab for the time of a block."""
    page = Page(browser, file, **situation)
    try:
        yield page
    finally:
        page.close()
