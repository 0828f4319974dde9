"""Each page, run again, shows what the built page shows; and this test would notice if not."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from tests.book.site import BUILD, executed_pages

SVG = "image/svg+xml"
Nbval = subprocess.CompletedProcess[str]


def nbval(notebook: Path, ini: Path) -> Nbval:
    """Run the notebook's cells again and compare their outputs with the stored ones."""
    ini.write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-c", ini]
    command += ["--rootdir", notebook.parent, "-p", "no:cacheprovider", "--color=no"]
    command += ["--nbval-sanitize-with", Path(__file__).with_name("nbval.cfg"), notebook]
    # As many threads as when the book was built: the numbers agree to the last digit only then.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def runs(html: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future]]:
    """All pages, as many at once as there are cores."""
    folder = tmp_path_factory.mktemp("nbval")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            page: pool.submit(nbval, BUILD / "executed" / f"{page}.ipynb", folder / f"{page}.ini")
            for page in executed_pages()
        }


@pytest.mark.parametrize("page", executed_pages())
def test_page_shows_what_its_code_produces_when_run_again(
    page: str, runs: dict[str, Future]
) -> None:
    run = runs[page].result()
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]


def change_digit(text: str, before: str) -> str:
    """Change the first digit that stands after `before`."""
    found = re.search(rf"{before}\D*?(\d)", text, re.S)
    assert found, "The output holds no digit."
    at = found.start(1)
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def tampered(kind: str) -> nbformat.NotebookNode:
    """A page up to its first output of that kind (text or figure), with one digit changed."""
    paths = [BUILD / "executed" / f"{page}.ipynb" for page in executed_pages()]
    for path in sorted(paths, key=lambda path: path.stat().st_size):
        notebook = nbformat.read(path, as_version=4)
        for number, cell in enumerate(notebook.cells):
            for output in cell.get("outputs", []):
                holder, key = (output, "text") if kind == "text" else (output.get("data", {}), SVG)
                if not re.search(r"\d", holder.get(key, "")):
                    continue
                holder[key] = change_digit(holder[key], "" if kind == "text" else '<path d="M')
                notebook.cells = notebook.cells[: number + 1]
                return notebook
    raise AssertionError(f"No page has an output that is a {kind}.")


@pytest.mark.parametrize("kind", ["text", "figure"])
def test_one_changed_digit_in_a_stored_output_is_noticed(
    kind: str, html: Path, tmp_path: Path
) -> None:
    notebook = tmp_path / "page.ipynb"
    nbformat.write(tampered(kind), notebook)
    run = nbval(notebook, tmp_path / "pytest.ini")
    assert run.returncode == 1 and "1 failed" in run.stdout, run.stdout[-4000:]
