"""Take README's picture of the built book: `python book/_ext/screenshot.py`, after `make book`."""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "_build/html/book/elbo.html"
PICTURE = ROOT / ".github/images/book.png"


def main() -> None:
    """Open the page in an installed Chromium and save what its first screen shows."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(path for name in names if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        page.goto(PAGE.as_uri() + "#fig-elbo-bars")
        page.wait_for_timeout(1500)  # equations are typeset
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
