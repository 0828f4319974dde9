"""What a submission earned, as nbgrader's gradebook holds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from vaecourse.grading.course import Course


class State(StrEnum):
    """How it came to a mark, or why there is none."""

    GRADED = "graded"
    STUDENT_ERROR = "student's error"
    TIMED_OUT = "time-out"
    OUR_FAULT = "our fault"
    MISSING = "no submission"


@dataclass(frozen=True)
class Mark:
    """One student's result for one assignment.

    `score` is None where nothing could be marked; it never stands in for a zero. `to_mark` counts
    the answers that wait for a person. `questions` holds marks by grade id, None where a person
    has not marked yet. `message` is one sentence, empty where all went well. `fresh` says whether
    the submission was run now or had not changed.
    """

    student: str
    assignment: str
    state: State
    score: float | None = None
    max_score: float = 0.0
    to_mark: int = 0
    questions: dict[str, float | None] = field(default_factory=dict)
    message: str = ""
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"fresh": False}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Mark":
        return cls(**entry | {"state": State(entry["state"])})


@contextmanager
def gradebook(course: Course) -> Iterator[Any]:
    """nbgrader's `Gradebook`, open. (Named as a type it would have to be imported.)"""
    from nbgrader.api import Gradebook

    course.folder.mkdir(parents=True, exist_ok=True)
    with Gradebook(course.db_url, course.course_id) as book:
        yield book


def questions(submission: Any) -> dict[str, float | None]:
    """Marks by grade id; None where neither a check nor a person has given one."""
    grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
    return {
        grade.name: None if grade.auto_score is grade.manual_score is None else grade.score
        for grade in sorted(grades, key=lambda grade: grade.name)
    }


def is_marked(submission: Any) -> bool:
    """Whether every question that a check marks has its mark."""
    by_hand = {
        cell.name for notebook in submission.notebooks for cell in notebook.notebook.solution_cells
    }
    marks = questions(submission)
    return all(mark is not None for name, mark in marks.items() if name not in by_hand)


def forget(course: Course, assignment: str, student: str) -> None:
    """Take back the marks that checks gave, so that none outlives the run it came from.

    The student is enrolled all the same, so that exports show the empty mark.
    """
    from nbgrader.api import MissingEntry

    with gradebook(course) as book:
        book.update_or_create_student(student)
        try:
            submission = book.find_submission(assignment, student)
        except MissingEntry:
            return
        for notebook in submission.notebooks:
            for grade in notebook.grades:
                grade.auto_score = None
                grade.needs_manual_grade = True
        book.db.commit()
