"""Execute the pages' code: side by side, once for each state of the code that it runs.

jupyter-cache knows a page by its own cells only. Here a page's cache also depends on the modules
of vaecourse that it imports, directly or not, so that a change in one of them, and nothing else,
re-executes the pages that use it. The executed notebooks are kept in `_build/executed`.
"""

import ast
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import create_nb_reader
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]
SHOWN_BY = ("torch", "matplotlib", "numpy")  # packages whose version may change what a page shows


def imported_files(code: str) -> set[Path]:
    """The files of vaecourse that the code imports, directly or through one another."""
    found: set[Path] = set()
    todo = [code]
    while todo:
        for node in ast.walk(ast.parse(todo.pop())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
            for name in names:
                parts = name.split(".")
                if parts[0] != "vaecourse":
                    continue
                for length in range(1, len(parts) + 1):
                    stem = ROOT.joinpath(*parts[:length])
                    for file in (stem.with_suffix(".py"), stem / "__init__.py"):
                        if file.is_file() and file not in found:
                            found.add(file)
                            todo.append(file.read_text(encoding="utf8"))
    return found


@cache
def file_hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def code_hash(page: str) -> str:
    """A name for the state of all that a page's code depends on besides its own text."""
    code = "\n".join(
        re.findall(r"^\s*((?:from|import) vaecourse[^\n(]*(?:\([^)]*\))?)", page, re.M)
    )
    digest = hashlib.sha256(" ".join(map(version, SHOWN_BY)).encode())
    for path in sorted(imported_files(code)) + sorted(ROOT.glob("vaecourse/*.mplstyle")):
        digest.update(path.name.encode() + file_hash(path))
    return digest.hexdigest()[:16]


def cache_path(app: Sphinx, page: str) -> str:
    return str(Path(app.outdir).parent / ".jupyter_cache" / code_hash(page))


def outdated(app: Sphinx, env: BuildEnvironment, added, changed, removed) -> list[str]:
    """Pages whose modules have changed since they were last built."""
    known = getattr(env, "course_code_hashes", {})
    now = {
        name: code_hash(Path(env.doc2path(name)).read_text(encoding="utf8"))
        for name in env.found_docs
    }
    env.course_code_hashes = now
    return [name for name, digest in now.items() if known.get(name) != digest]


def execute(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    """Fill the cache for the pages about to be read, as many at once as there are cores."""

    def execute_page(name: str) -> str | None:
        path = Path(env.doc2path(name))
        page = path.read_text(encoding="utf8")
        reader = create_nb_reader(str(path), env.myst_config, env.mystnb_config, page)
        if reader is None:
            return None
        notebook = reader.read(page)
        with creating:
            store = get_cache(cache_path(app, page))
            store.list_cache_records()
        try:
            _, notebook = store.merge_match_into_notebook(notebook)
        except KeyError:
            result = single_nb_execution(
                notebook,
                cwd=str(path.parent),
                timeout=env.mystnb_config.execution_timeout,
                allow_errors=False,
            )
            if result.err is not None:
                return re.sub(r"\x1b\[[\d;]*m", "", f"The code of {path} failed.\n{result.err}")
            logger.info(f"executed {name} in {result.time:.1f} s")
            store.cache_notebook_bundle(
                CacheBundleIn(notebook, str(path), data={"execution_seconds": result.time}),
                check_validity=False,
                overwrite=True,
            )
        executed = Path(app.outdir).parent / "executed" / f"{path.stem}.ipynb"
        executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, executed)
        return None

    creating = Lock()  # two pages with one cache must not create its database at once
    # Seeded results are the same bit by bit only at one and the same number of threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [failure for failure in pool.map(execute_page, names) if failure]
    if failures:
        raise ExtensionError("\n\n".join(failures))


def choose_cache(app: Sphinx, name: str, source: list[str]) -> None:
    """Point myst-nb to the cache of the page that it is about to read."""
    app.env.mystnb_config = app.env.mystnb_config.copy(
        execution_cache_path=cache_path(app, source[0])
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-get-outdated", outdated)
    app.connect("env-before-read-docs", execute)
    app.connect("source-read", choose_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
