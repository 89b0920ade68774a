"""Debian's chromium, headless, and all that a page does in it that a reader does not see."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium")
# Without these there is nothing to look with; .ci/run installs both.
MISSING = "" if CHROMIUM else "no chromium: apt-get install chromium"
try:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Frame, Page, Request, Route, sync_playwright
except ImportError:
    MISSING = "no playwright: pip install 'modelpress[dev]'"

needs_browser = pytest.mark.skipif(bool(MISSING), reason=MISSING)
_HERE = ("127.0.0.1", "localhost")


@dataclass
class Seen:
    """What pages did while one looked at them."""

    # Addresses outside this machine, and who asked for them.
    outside: list[tuple[str, str]] = field(default_factory=list)
    # Errors and warnings on the console, and exceptions, by the address of the page that they are of.
    complaints: list[tuple[str, str]] = field(default_factory=list)

    def of_our_pages(self) -> list[tuple[str, str]]:
        """What is MLflow's own left out: its view shows our pages as blobs, and we open files."""
        found = [*self.outside, *self.complaints]
        return [one for one in found if one[0].startswith(("blob:", "file:", "about:", "data:"))]


@contextmanager
def run_browser(
    *, dark: bool = False, width: int = 1280, script: bool = True
) -> Iterator[tuple["BrowserContext", Seen]]:
    """A fresh profile, whose requests reach this machine alone."""
    seen = Seen()
    with sync_playwright() as playwright:
        # The names of other hosts mean nothing, even to what does not pass the routes.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(
            viewport={"width": width, "height": 1000},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        context.route("**/*", lambda route: _pass(route, seen))
        context.on("console", lambda message: _hear(message, seen))
        context.on("weberror", lambda error: seen.complaints.append((error.page.url, str(error.error))))
        try:
            yield context, seen
        finally:
            browser.close()


def _pass(route: "Route", seen: Seen) -> None:
    parts = urlsplit(route.request.url)
    if parts.scheme in ("blob", "data", "file", "about") or parts.hostname in _HERE:
        route.continue_()
        return
    seen.outside.append((_who(route.request), route.request.url))
    route.abort()


def _who(request: "Request") -> str:
    return request.frame.url


def _hear(message: "ConsoleMessage", seen: Seen) -> None:
    if message.type in ("error", "warning"):
        seen.complaints.append((message.location.get("url", ""), message.text))


def open_artifact(context: "BrowserContext", server_uri: str, experiment_id: str, run_id: str, name: str) -> "Frame":
    """Go to a file in MLflow's artifact view; returns the frame that it is shown in."""
    page = context.new_page()
    page.goto(f"{server_uri}/#/experiments/{experiment_id}/runs/{run_id}/artifacts/{name}")
    return find_artifact(page)


def find_artifact(page: "Page") -> "Frame":
    """The frame in which MLflow's artifact view shows one of our pages."""
    handle = page.wait_for_selector("iframe[src^='blob:']", timeout=60_000)
    assert handle is not None
    frame = handle.content_frame()
    assert frame is not None
    # Of our pages the last element, or the first of a graph's.
    frame.wait_for_selector("main footer, svg .node", timeout=60_000, state="attached")
    return frame


def open_file(context: "BrowserContext", path: Path) -> "Page":
    page = context.new_page()
    page.goto(path.resolve().as_uri())
    return page
