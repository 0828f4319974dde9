"""The assignment on the KL divergence, from its text to the class's marks."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nbgrader", reason="grading needs the extra `grade`")

from vaecourse.grading.course import Course  # noqa: E402
from vaecourse.grading.export import export  # noqa: E402
from vaecourse.grading.feedback import feedback  # noqa: E402
from vaecourse.grading.grade import grade  # noqa: E402
from vaecourse.grading.marks import Mark, State  # noqa: E402
from vaecourse.grading.release import release  # noqa: E402
from vaecourse.grading.sample import SampleStudent, sample, sample_class  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
STUDENTS = sample_class(Course.open(REPOSITORY), "kl")
POINTS = {
    "q1-value": 3,
    "q1-batch": 2,
    "q2-estimate": 3,
    "q2-error": 2,
    "q3-value": 1,
    "q3-zeros": 2,
    "q4-proof": None,  # waits for a person
    "q5-claims": 3,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("course")
    shutil.copy(REPOSITORY / "nbgrader_config.py", root)
    shutil.copytree(REPOSITORY / "solutions/kl", root / "solutions/kl")
    return root


@pytest.fixture(scope="module")
def marks(root: Path) -> dict[str, Mark]:
    release(root=root)
    sample(root=root)
    return {mark.student: mark for mark in grade(root=root)}


@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: student.id)
def test_sample_student_earns_what_is_declared(
    marks: dict[str, Mark], student: SampleStudent
) -> None:
    mark = marks[student.id]
    if student.base is None:
        assert (mark.state, mark.score, mark.questions) == (State.MISSING, None, {})
        return
    expected = POINTS | student.marks
    assert mark.questions == expected
    assert mark.score == sum(points for points in expected.values() if points is not None)
    assert mark.max_score == 20
    ends_the_process = "os._exit" in student.answers.get("q2-answer", "")
    assert mark.state is (State.STUDENT_ERROR if ends_the_process else State.GRADED)


def test_each_misconception_is_named_in_the_feedback(root: Path, marks: dict[str, Mark]) -> None:
    mistaken = ["sample-ben", "sample-chen"]
    pages = {p.parents[1].name: p.read_text() for p in feedback(root=root, students=mistaken)}
    assert "You return KL(p‖q); the question asks for KL(q‖p)." in pages["sample-ben"]
    assert "You estimate KL(p‖q); the question asks for KL(q‖p)." in pages["sample-ben"]
    assert "the ½ in front is missing" in pages["sample-chen"]
    assert "the spread of one term" in pages["sample-chen"]
    assert "0 ln 0 counts as 0" in pages["sample-chen"]


def test_class_is_exported_with_names_intact_and_absent_marks_empty(
    root: Path, marks: dict[str, Mark]
) -> None:
    with export(root=root).open(newline="", encoding="utf-8") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    for student in STUDENTS:
        row, score = rows[student.id], marks[student.id].score
        assert (row["first_name"], row["last_name"]) == (student.first_name, student.last_name)
        assert row["score"] == ("" if score is None else str(score))
    assert "," in rows["sample-ben"]["last_name"]


def test_nothing_is_done_twice(root: Path, marks: dict[str, Mark]) -> None:
    assert not any(made.fresh for made in release(root=root))
    sample(root=root)
    assert grade(root=root) == [replace(mark, fresh=False) for mark in marks.values()]
