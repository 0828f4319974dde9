"""A browser that opens the built book, served on this machine, and keeps account of each page."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.book.site import build

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(build()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next(filter(None, found), None)
    if path is None:
        pytest.fail("The browser tests need Chromium or Chrome: install one.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page in the browser, and what it asked for and complained about."""

    page: Page
    address: str
    elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str, typeset: bool = True) -> None:
        """Go to a page of the book and wait until its equations are typeset, if they shall be."""
        if not typeset:
            nothing = {"body": "", "content_type": "text/javascript"}
            self.page.route("**/mathjax4/**", lambda route: route.fulfill(**nothing))
        self.page.goto(f"{self.address}/{path}")
        self.page.evaluate("window.MathJax?.startup?.promise")

    def __post_init__(self) -> None:
        self.page.on("request", self._note_request)
        self.page.on("response", self._note_response)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note_console)

    def _note_request(self, request) -> None:
        if not request.url.startswith((f"{self.address}/", "data:", "blob:")):
            self.elsewhere.append(request.url)

    def _note_response(self, response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def _note_console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture
def visit(browser: Browser, address: str):
    """`with visit(scheme, width) as v: v.open("book/kl.html")`."""

    @contextmanager
    def opener(scheme: str = "light", width: int = 1280) -> Iterator[Visit]:
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
        )
        context.set_default_timeout(10_000)
        try:
            yield Visit(context.new_page(), address)
        finally:
            context.close()

    return opener


@pytest.fixture(scope="session")
def axe() -> str:
    return (Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js").read_text()
