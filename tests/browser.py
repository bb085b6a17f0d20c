"""A headless Chromium, spoken to through pipes: no network, nothing kept, no package but Chromium itself."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
    # every name is unknown and no proxy answers: what a page asks of a network fails, and is noted
    "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9",
)  # fmt: skip
LONGEST_S = 60.0


def chromium() -> str | None:
    """Where Chromium is, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """A page in the browser.

    Attributes:
        console: What it wrote to the console, and exceptions that nothing caught.
        requests: Addresses that it asked for, but for files and data inside it.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer, self._last, self._session = write, read, b"", 0, ""
        self.console: list[str] = []
        self.requests: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def open(self, page: Path, width: int, height: int, phone: bool = False) -> None:
        """Open a file in a window of this size and wait until it is loaded."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        self.ask("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + LONGEST_S
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            select.select([self._read], [], [], 0.05)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Save what the window shows, or the whole page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print_to(self, path: Path) -> None:
        """Print to a PDF file, on A4."""
        answer = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a message and wait for its answer; events in between are noted."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            received = self._receive(method)
            if received.get("id") == self._last:
                assert "error" not in received, received["error"]
                return received["result"]
            self._note(received)

    def _receive(self, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], LONGEST_S)
            assert ready, f"no answer to {method}"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        said = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(part.get("value", part)) for part in said["args"]))
            case "Runtime.exceptionThrown":
                self.console.append(json.dumps(said["exceptionDetails"])[:500])
            case "Log.entryAdded":
                self.console.append(said["entry"]["text"])
            case "Network.requestWillBeSent":
                address = said["request"]["url"]
                if not address.startswith(("file:", "data:", "blob:", "about:")):
                    self.requests.append(address)


@contextlib.contextmanager
def open_tab() -> Iterator[Tab]:
    """A tab of a browser with an empty profile, which ends with the block."""
    asked, answered = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory() as profile, Path(os.devnull).open("w") as nothing:
        # Chromium reads from 3 and writes to 4
        script = f'exec "$0" "$@" 3<&{asked[0]} 4>&{answered[1]}'
        command = ["bash", "-c", script, str(chromium()), *OPTIONS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, stdout=nothing, stderr=nothing, pass_fds=(asked[0], answered[1]))
        os.close(asked[0])
        os.close(answered[1])
        try:
            tab = Tab(asked[1], answered[0])
            yield tab
            tab._session = ""
            tab.ask("Browser.close")
        finally:
            os.close(asked[1])
            os.close(answered[0])
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
