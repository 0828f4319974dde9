"""A page is executed again when, and only when, a module that it uses has changed."""

from pathlib import Path
from types import ModuleType

import pytest

from tests.book.site import BOOK

PAGE = "```{code-cell} ipython3\nimport torch\nfrom vaecourse.kl import kl\n```\n"


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The extension, looking at a small package: kl imports data; elbo imports kl."""
    monkeypatch.syspath_prepend(BOOK / "_ext")
    import course_execute

    package = tmp_path / "vaecourse"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text("import torch\n")
    (package / "kl.py").write_text("def kl():\n    from vaecourse import data\n")
    (package / "elbo.py").write_text("from vaecourse.kl import kl\n")
    (package / "vaecourse.mplstyle").write_text("font.size: 11\n")
    monkeypatch.setattr(course_execute, "ROOT", tmp_path)
    return course_execute


def change(path: Path) -> None:
    path.write_text(path.read_text() + "\n# changed\n")


@pytest.mark.parametrize("name", ["kl.py", "data.py", "__init__.py", "vaecourse.mplstyle"])
def test_a_change_in_what_a_page_imports_changes_its_hash(execute, name, tmp_path) -> None:
    before = execute.code_hash(PAGE)
    change(tmp_path / "vaecourse" / name)
    execute.file_hash.cache_clear()
    assert execute.code_hash(PAGE) != before


def test_a_change_in_another_module_or_in_the_prose_does_not(execute, tmp_path) -> None:
    before = execute.code_hash(PAGE)
    change(tmp_path / "vaecourse" / "elbo.py")
    execute.file_hash.cache_clear()
    assert execute.code_hash("Some prose.\n" + PAGE) == before


@pytest.mark.parametrize(
    "line",
    [
        "import vaecourse.kl",
        "from vaecourse import kl",
        "from vaecourse import (\n    elbo,\n    kl,\n)",
        "  from vaecourse.kl import kl as divergence",
    ],
)
def test_every_way_to_import_a_module_is_seen(execute, line, tmp_path) -> None:
    page = f"```{{code-cell}} ipython3\n{line}\n```\n"
    before = execute.code_hash(page)
    change(tmp_path / "vaecourse" / "data.py")
    execute.file_hash.cache_clear()
    assert execute.code_hash(page) != before
