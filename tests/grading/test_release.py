"""What holds of a release before any student sees it."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from vaecourse.grading import (
    CourseFolderError,
    NotReleased,
    ReleaseError,
    UnknownAssignment,
)
from vaecourse.grading.grade import grade
from vaecourse.grading.rebuild import answers, read
from vaecourse.grading.release import release
from vaecourse.grading.sample import sample


def test_release_holds_no_answer_and_no_hidden_check(released: Path) -> None:
    text = (released / "_course/release/toy/toy.ipynb").read_text()
    for secret in ("math.pi", "coin", "cake", "HIDDEN", "SOLUTION"):
        assert secret not in text
    assert "A point has no area." in text


def test_unchanged_release_is_left_alone(released: Path) -> None:
    path = released / "_course/release/toy/toy.ipynb"
    before = path.stat().st_mtime_ns
    (toy,) = release(root=released)
    assert (toy.fresh, toy.points, toy.questions, toy.path) == (False, 5, 3, path)
    assert path.stat().st_mtime_ns == before


def test_release_is_the_same_bytes_when_made_again(course: Path) -> None:
    path = course / "_course/release/toy/toy.ipynb"
    before = path.read_bytes()
    path.unlink()
    (toy,) = release(root=course)
    assert toy.fresh and path.read_bytes() == before


def test_unknown_assignment_is_refused_with_the_known_ones(released: Path) -> None:
    for verb in (release, sample, grade):
        with pytest.raises(UnknownAssignment, match="no assignment 'top': choose from toy"):
            verb(root=released, assignments=["top"])


def test_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CourseFolderError, match="no nbgrader_config.py in"):
        release(root=tmp_path)
    with pytest.raises(CourseFolderError, match="no nbgrader_config.py in"):
        release(root=tmp_path / "absent")


def test_broken_configuration_stops_everything(course: Path) -> None:
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text() + "\nc.Execute.timeout = seconds\n")
    for verb in (release, sample, grade):
        with pytest.raises(CourseFolderError, match="fails with NameError .* mend it first"):
            verb(root=course)


def test_changed_source_must_be_released_again_before_grading(course: Path) -> None:
    text = course / "solutions/toy/toy.md"
    text.write_text(text.read_text().replace("Say why.", "Say why, please."))
    for verb in (sample, grade):
        with pytest.raises(
            NotReleased, match="'toy' has changed since its release: run `vaecourse"
        ):
            verb(root=course, assignments=["toy"])


ANSWER = "def area(radius):\n    ### BEGIN SOLUTION\n    return math.pi * radius**2\n"
CAKE = "Slices of a cake make a rectangle."
BROKEN = {
    "reference answer earns 0 of 2 marks in q1-area": [("math.pi * radius**2", "3 * radius**2")],
    f"release shows '{CAKE}' in cell": [("Say why.", f"Say why.\n\n{CAKE}")],
    "untouched release earns 2 marks in q1-area": [
        ("import math\n", "import math\n\ndef area(r): return math.pi * r**2\n"),
        (ANSWER, "### BEGIN SOLUTION\npass\n"),
        ("    ### END SOLUTION", "### END SOLUTION"),
    ],
    "nbgrader cannot release 'toy' .*no end": [("    ### END SOLUTION\n", "")],
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_release_that_breaks_a_promise_is_stopped(
    make_course: Callable[..., Path], sentence: str
) -> None:
    root = make_course(*BROKEN[sentence])
    with pytest.raises(ReleaseError, match=sentence):
        release(root=root)
    assert not (root / "_course/release/toy/toy.ipynb").exists()
    with pytest.raises(NotReleased, match="'toy' has not been released yet"):
        grade(root=root, assignments=["toy"])


def test_reference_notebook_is_the_source(released: Path) -> None:
    notebook = read(released / "_course/source/toy/toy.ipynb")
    assert set(answers(notebook)) == {"q1-answer", "q2-why", "q3-answer"}
    nbformat.validate(notebook)
