"""A class with every kind of submission, graded once; then what changes and what does not."""

import csv
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from vaecourse.cli import main
from vaecourse.grading import CourseFolderError, NoSubmission, NotReleased
from vaecourse.grading.course import Course
from vaecourse.grading.export import export
from vaecourse.grading.feedback import feedback
from vaecourse.grading.grade import grade
from vaecourse.grading.marks import Mark, State, gradebook
from vaecourse.grading.rebuild import grade_id, read, write

ODD = "Zoë O'Hara, {jr}"  # a folder's name with the characters of formats and of CSV

NOISY = """
import sys, warnings

def area(r):
    warnings.warn("!")
    print("50 %", file=sys.stderr)
    return math.pi * r * r
"""


def hand_in(root: Path, student: str, answers: dict[str, str], base: str = "source") -> Path:
    notebook = read(root / f"_course/{base}/toy/toy.ipynb")
    for cell in notebook.cells:
        cell.source = answers.get(grade_id(cell) or "", cell.source)
    path = root / f"_course/submitted/{student}/toy/toy.ipynb"
    write(notebook, path)
    return path


def edit(path: Path, change: Callable[[NotebookNode], None]) -> None:
    notebook = read(path)
    change(notebook)
    write(notebook, path)


def spoil_metadata(notebook: NotebookNode) -> None:
    """What students and tools do to a notebook without meaning harm."""
    cells = {grade_id(cell): cell for cell in notebook.cells}
    cells["setup"].metadata.nbgrader["schema_version"] = 9
    cells["q1-area"].metadata["nbgrader"] = {}
    cells["q3-things"].metadata["tags"] = ["skip-execution"]
    copy = NotebookNode({**cells["q1-answer"], "id": "copy"})
    notebook.cells.insert(0, new_code_cell("broken ="))
    notebook.cells.insert(notebook.cells.index(cells["q1-answer"]), copy)
    notebook.metadata["kernelspec"] = {"name": "absent", "display_name": "absent"}


@pytest.fixture(scope="module")
def handed_in(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(released, tmp_path_factory.mktemp("class") / "course")
    hand_in(root, "right", {})
    hand_in(root, ODD, {"q1-answer": NOISY})
    edit(hand_in(root, "spoilt", {}), spoil_metadata)
    hand_in(
        root,
        "wrong",
        {"q1-answer": "def area(r): return 3 * r**2", "q3-answer": "round_things = {'coin'}"},
    )
    hand_in(root, "blank", {}, base="release")
    hand_in(root, "slow", {"q1-answer": "while True: pass"})
    hand_in(root, "dying", {"q3-answer": "import os; os._exit(1)"})
    hand_in(root, "unreadable", {}).write_text("no notebook")
    hand_in(root, "empty", {}).rename(root / "_course/submitted/empty/toy/mine.ipynb")
    hand_in(root, "link", {}).unlink()
    (root / "_course/submitted/link/toy/toy.ipynb").symlink_to(
        root / "_course/source/toy/toy.ipynb"
    )
    with gradebook(Course.open(root)) as book:
        book.update_or_create_student("absent", first_name="Ann", last_name='O"Hara, "Jr."')
    return root


@pytest.fixture(scope="module")
def graded(handed_in: Path, home: Path) -> tuple[Path, dict[str, Mark]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        marks = grade(root=handed_in)
        feedback(root=handed_in)
    return handed_in, {mark.student: mark for mark in marks}


@pytest.fixture
def copy(graded: tuple[Path, dict[str, Mark]], tmp_path: Path) -> Path:
    """The graded class, to go on with."""
    return shutil.copytree(graded[0], tmp_path / "course", symlinks=True)


@pytest.mark.parametrize(
    ("student", "state", "score", "to_mark"),
    [
        ("right", State.GRADED, 4, 1),
        (ODD, State.GRADED, 4, 1),
        ("spoilt", State.GRADED, 4, 1),
        ("wrong", State.GRADED, 1, 1),
        ("blank", State.GRADED, 0, 0),
        ("slow", State.TIMED_OUT, 2, 1),
        ("dying", State.STUDENT_ERROR, 2, 1),
        ("unreadable", State.STUDENT_ERROR, None, 0),
        ("empty", State.STUDENT_ERROR, None, 0),
        ("link", State.STUDENT_ERROR, None, 0),
        ("absent", State.MISSING, None, 0),
    ],
)
def test_every_submission_ends_with_its_state_and_mark(
    graded: tuple[Path, dict[str, Mark]], student: str, state: State, score: float, to_mark: int
) -> None:
    mark = graded[1][student]
    assert (mark.state, mark.score, mark.to_mark, mark.max_score) == (state, score, to_mark, 5)
    assert (mark.message == "") == (state in (State.GRADED, State.MISSING))
    assert mark.fresh == (student != "absent")


def test_nobody_is_missing_and_nobody_is_invented(graded: tuple[Path, dict[str, Mark]]) -> None:
    assert len(graded[1]) == 11


def test_messages_say_what_and_where(graded: tuple[Path, dict[str, Mark]]) -> None:
    messages = {student: mark.message for student, mark in graded[1].items()}
    assert messages["slow"] == "The time limit passed in cell q1-answer."
    assert messages["dying"] == "The Python process ended in cell q3-answer."
    assert messages["unreadable"] == "toy.ipynb is not a notebook: save it again in Jupyter."
    assert messages["empty"] == messages["link"] == "The submission has no toy.ipynb."


def test_home_of_whoever_grades_stays_empty(graded: object, home: Path) -> None:
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_feedback_is_a_page_for_each_graded_submission(
    graded: tuple[Path, dict[str, Mark]],
) -> None:
    root, marks = graded
    pages = {page.parents[1].name for page in (root / "_course/feedback").rglob("toy.html")}
    assert pages == {student for student, mark in marks.items() if mark.score is not None}
    page = (root / "_course/feedback/wrong/toy/toy.html").read_text()
    assert "The unit disc has area π." in page


def test_unchanged_class_is_not_run_again(copy: Path) -> None:
    seen = grade(root=copy)
    started = time.perf_counter()
    marks = grade(root=copy)
    assert time.perf_counter() - started < 3
    assert marks == seen and not any(mark.fresh for mark in marks)


def test_only_what_changed_is_run_again(copy: Path) -> None:
    hand_in(copy, "wrong", {"q1-answer": "def area(r): return math.pi * r**2"})
    run = []
    marks = grade(root=copy, on_mark=lambda assignment, student, state: run.append(student))
    assert run == ["wrong"]
    assert {mark.student: mark.score for mark in marks}["wrong"] == 4


def test_mark_does_not_outlive_the_submission_it_came_from(copy: Path) -> None:
    hand_in(copy, "right", {}).write_text("{")
    (mark,) = grade(root=copy, students=["right"])
    assert (mark.state, mark.score) == (State.STUDENT_ERROR, None)
    assert not (copy / "_course/feedback/right/toy/toy.html").exists()
    rows = {
        row["student_id"]: row for row in csv.DictReader(export(root=copy).read_text().splitlines())
    }
    assert rows["right"]["score"] == "" and rows["wrong"]["score"] == "1.0"


def test_marks_by_hand_count_and_survive_a_regrade(copy: Path) -> None:
    with gradebook(Course.open(copy)) as book:
        proof = book.find_grade("q2-why", "toy", "toy", "right")
        proof.manual_score, proof.needs_manual_grade = 0.5, False
        book.db.commit()
    marks = {mark.student: mark for mark in grade(root=copy)}
    assert (marks["right"].score, marks["right"].to_mark) == (4.5, 0)
    (mark,) = grade(root=copy, students=["right"], regrade=True)
    assert mark.fresh and mark.score == 4.5


def test_our_fault_is_never_a_zero_and_is_tried_again(copy: Path) -> None:
    hand_in(copy, "group [1-9]", {})
    for _ in range(2):
        (mark,) = grade(root=copy, students=["group [1-9]"])
        assert (mark.state, mark.score, mark.fresh) == (State.OUR_FAULT, None, True)
        assert mark.message.endswith("for a pattern: rename the folder.")


def test_lost_gradebook_is_asked_for_and_filled_again(copy: Path) -> None:
    from vaecourse.grading.release import release

    (copy / "_course/gradebook.db").unlink()
    with pytest.raises(NotReleased, match="run `vaecourse release toy`"):
        grade(root=copy)
    release(root=copy)
    (mark,) = grade(root=copy, students=["right"])
    assert mark.fresh and mark.score == 4


def test_csv_is_quoted_and_an_absent_mark_is_empty(graded: tuple[Path, dict[str, Mark]]) -> None:
    root, marks = graded
    with export(root=root).open(newline="", encoding="utf-8") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert rows["absent"]["last_name"] == 'O"Hara, "Jr."'
    assert rows["absent"]["score"] == rows["absent"]["raw_score"] == ""
    for student, row in rows.items():
        score = marks[student].score
        assert row["score"] == ("" if score is None else str(score))
        assert row["to_mark"] == ("" if score is None else str(marks[student].to_mark))
    assert set(rows) == set(marks)


def test_export_that_cannot_be_done_leaves_the_marks_file_alone(
    graded: tuple[Path, dict[str, Mark]], tmp_path: Path
) -> None:
    root, _ = graded
    path = export(root=root)
    before = path.read_text()
    with pytest.raises(CourseFolderError, match="There is no folder .*: make it"):
        export(root=root, to=root / "absent/marks.csv")
    with pytest.raises(CourseFolderError, match="cannot be written to .*: export to another file"):
        export(root=root, to=tmp_path)
    with pytest.raises(NoSubmission, match="no student 'nobody'"):
        export(root=root, students=["nobody"], to=tmp_path / "some.csv")
    with pytest.raises(CourseFolderError, match="is for the whole class"):
        export(root=root, students=["right"])
    assert path.read_text() == before
    assert not (tmp_path / "some.csv").exists()


def test_feedback_shows_the_message_of_a_hidden_check_and_not_the_check(
    graded: tuple[Path, dict[str, Mark]],
) -> None:
    (page,) = feedback(root=graded[0], students=["wrong"])
    text = page.read_text(encoding="utf-8")
    assert "AssertionError: The unit disc has area π." in text
    for secret in ("HIDDEN TESTS", "isclose", "round_things ^"):
        assert secret not in text


def test_command_exits_with_1_when_a_submission_could_not_be_marked(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy)
    for student, code in (("unreadable", 1), ("right", 0)):
        monkeypatch.setattr("sys.argv", ["vaecourse", "grade", "toy", "--student", student])
        with pytest.raises(SystemExit) as stop:
            main()
        assert (stop.value.code or 0) == code
    assert "toy.ipynb is not a notebook" in capsys.readouterr().out


def test_nothing_to_grade_is_said(released: Path, tmp_path: Path) -> None:
    root = shutil.copytree(released, tmp_path / "course")
    with pytest.raises(NoSubmission, match="Student 'nobody' has handed in nothing: put the"):
        grade(root=root, students=["nobody"])
    with pytest.raises(NoSubmission, match="nothing to grade: put each notebook at"):
        grade(root=root)
    with pytest.raises(NoSubmission, match="nothing to grade: put each notebook at"):
        grade(root=root, assignments=["toy"])
    with pytest.raises(NoSubmission, match="Nothing has been graded yet"):
        feedback(root=root)


def test_feedback_for_an_ungraded_student_is_refused(graded: tuple[Path, dict[str, Mark]]) -> None:
    with pytest.raises(NoSubmission, match="'toy' of 'empty' is not graded"):
        feedback(root=graded[0], students=["empty"])
