"""A small course that runs in a second a notebook: no torch, all kinds of cells."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

pytest.importorskip("nbgrader", reason="grading needs the extra `grade`")


@pytest.fixture(scope="session")
def make_course(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a fresh course with the toy assignment, its text edited by (old, new) pairs."""

    def make(*edits: tuple[str, str]) -> Path:
        root = tmp_path_factory.mktemp("course")
        config = (REPOSITORY / "nbgrader_config.py").read_text()
        assert "c.Execute.timeout = 60" in config
        config = config.replace("c.Execute.timeout = 60", "c.Execute.timeout = 5")
        (root / "nbgrader_config.py").write_text(config)
        (root / "solutions/toy").mkdir(parents=True)
        text = (HERE / "toy.md").read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (root / "solutions/toy/toy.md").write_text(text)
        return root

    return make


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def released(make_course: Callable[..., Path], home: Path) -> Path:
    """A course with its toy released, by a person whose home is empty."""
    from vaecourse.grading.release import release

    root = make_course()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        release(root=root)
    return root


@pytest.fixture
def course(released: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(released, tmp_path / "course")
