"""A sample class: what its students hand in, and what each should earn for it."""

import runpy
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vaecourse.grading import CourseFolderError
from vaecourse.grading.course import Course, digest
from vaecourse.grading.marks import gradebook


@dataclass(frozen=True)
class SampleStudent:
    """A student of the sample class.

    `answers` replaces answers of the base by grade id: of the `reference` notebook, or of the
    untouched `release`; a base of None hands in nothing. `marks` declares what each question
    earns that does not earn all it can, and `story` the misconception behind it.
    """

    id: str
    first_name: str
    last_name: str
    story: str
    base: Literal["reference", "release"] | None = "reference"
    answers: dict[str, str] = field(default_factory=dict)
    marks: dict[str, int | float] = field(default_factory=dict)


def sample_class(course: Course, assignment: str) -> list[SampleStudent]:
    """The students in `solutions/<stem>/sample_class.py`; none where there is no such file."""
    path = course.solution(assignment).with_name("sample_class.py")
    return list(runpy.run_path(str(path))["STUDENTS"]) if path.is_file() else []


def sample(*, root: Path = Path(), assignments: Iterable[str] = ()) -> list[Path]:
    """Hand in the sample class's notebooks, and enrol its students.

    Returns the notebooks. Raises UnknownAssignment, NotReleased, or CourseFolderError where a
    student of that name has handed in something else.
    """
    course = Course.open(root)
    names = course.assignments(assignments)
    for name in names:
        course.require_release(name)
    return [path for name in names for path in _hand_in(course, name)]


def _hand_in(course: Course, assignment: str) -> list[Path]:
    students = sample_class(course, assignment)
    paths = {s.id: course.submitted(assignment, s.id) for s in students if s.base}
    entry = course.record.get("sample", assignment)
    definition = course.solution(assignment).with_name("sample_class.py")
    version = digest(course.version(assignment), definition)
    written = entry.get("written", {})
    for name, path in paths.items():
        if path.exists() and digest(path) != written.get(name):
            raise CourseFolderError(
                f"{path} was not written by the sample class: move it away first."
            )
    if entry.get("version") == version and all(path.exists() for path in paths.values()):
        return list(paths.values())

    from vaecourse.grading.rebuild import answers, grade_id, read, write

    source, release = read(course.source(assignment)), read(course.release(assignment))
    for student in students:
        if student.base:
            given = answers(source if student.base == "reference" else release) | student.answers
            notebook = read(course.release(assignment))
            for cell in notebook.cells:
                cell.source = given.get(grade_id(cell) or "", cell.source)
            write(notebook, paths[student.id])
    with gradebook(course) as book:
        for student in students:
            names = {"first_name": student.first_name, "last_name": student.last_name}
            book.update_or_create_student(student.id, **names)
    written = {name: digest(path) for name, path in paths.items()}
    course.record.put("sample", assignment, entry={"version": version, "written": written})
    return list(paths.values())
