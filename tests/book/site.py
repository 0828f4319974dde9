"""The built book, for the tests that look at it."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "_build"
BOOK = ROOT / "book"
CHAPTERS = ("mle", "latent", "kl", "elbo", "reparam", "vae", "cvae")


def toc_pages() -> list[str]:
    """The stems of the pages in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    files = [toc["root"]] + [page["file"] for part in toc["parts"] for page in part["chapters"]]
    return [Path(file).name for file in files]


def executed_pages() -> list[str]:
    """The stems of the pages that hold code."""
    return [page for page in toc_pages() if "{code-cell}" in page_text(page)]


def page_text(page: str) -> str:
    path = BOOK / f"{page}.md"
    return path.read_text(encoding="utf8") if path.is_file() else ""


@cache
def build() -> Path:
    """The folder of the pages, built anew when a source is newer than they are."""
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "package-lock.json"]
    for folder in (BOOK, ROOT / "vaecourse"):
        sources += [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    built = BUILD / "html" / ".built"
    newest = max(path.stat().st_mtime for path in sources)
    if not built.is_file() or built.stat().st_mtime < newest:
        command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "-W", "-n", "-q"]
        done = subprocess.run([*command, "--keep-going"], capture_output=True, text=True)
        assert done.returncode == 0, f"The book does not build: {done.stderr[-3000:]}"
    return BUILD / "html"
