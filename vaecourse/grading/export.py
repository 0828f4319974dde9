"""The gradebook as a CSV file."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaecourse.grading import CourseFolderError, NoSubmission, NotReleased
from vaecourse.grading.course import Course, digest
from vaecourse.grading.marks import gradebook, is_marked, questions

# nbgrader's own columns, and how many answers still wait for a person.
COLUMNS = (
    "assignment",
    "duedate",
    "timestamp",
    "student_id",
    "last_name",
    "first_name",
    "email",
    "raw_score",
    "late_submission_penalty",
    "score",
    "max_score",
    "to_mark",
)


def export(
    *,
    root: Path = Path(),
    assignments: Iterable[str] = (),
    students: Iterable[str] = (),
    to: Path | None = None,
) -> Path:
    """Write the marks of all enrolled students to a CSV file (`_course/marks.csv`), one row each.

    A mark that does not exist (nothing handed in, or it could not be marked) is empty, not 0.

    Raises UnknownAssignment, CourseFolderError where the file's folder is absent, or
    NotReleased where the gradebook knows nothing of an assignment.
    """
    course = Course.open(root)
    asked, wanted = list(assignments), list(students)
    names = course.assignments(asked)
    for name in asked:
        if not course.record.get("release", name):
            raise NotReleased(
                f"Assignment {name!r} is not released: run `vaecourse release {name}`."
            )
    path = to or course.folder / "marks.csv"
    if wanted and to is None:
        raise CourseFolderError(
            f"{path} is for the whole class: name another file with --to for some students."
        )
    if to and not to.parent.is_dir():
        raise CourseFolderError(f"There is no folder {to.parent}: make it, or export to another.")
    seen = course.gradebook_digest()
    if not course.has_gradebook():
        raise NotReleased("There is no gradebook yet: run `vaecourse release` first.")
    entry = course.record.get("export", str(path))
    if seen is None or entry.get("key") != digest(seen, *names, "", *wanted, path):
        with gradebook(course) as book:
            known = {student.id for student in book.students}
            for student in wanted:
                if student not in known:
                    raise NoSubmission(
                        f"There is no student {student!r} in the gradebook: check the name."
                    )
            try:
                write_csv(book, path, assignments=names, students=wanted)
            except OSError as error:
                raise CourseFolderError(
                    f"The marks cannot be written to {path} ({error.strerror}): export to another "
                    "file."
                ) from error
        key = digest(course.gradebook_digest() or "", *names, "", *wanted, path)
        course.record.put("export", str(path), entry={"key": key})
    return path


def write_csv(
    book: Any, path: Path, *, assignments: Iterable[str] = (), students: Iterable[str] = ()
) -> None:
    """Write the marks in a gradebook; without names, of all assignments and students."""
    chosen, wanted = list(assignments), list(students)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for assignment in book.assignments:
            if chosen and assignment.name not in chosen:
                continue
            submissions = {s.student.id: s for s in book.assignment_submissions(assignment.name)}
            for student in sorted(book.students, key=lambda student: student.id):
                if wanted and student.id not in wanted:
                    continue
                row = {
                    "assignment": assignment.name,
                    "duedate": assignment.duedate,
                    "student_id": student.id,
                    "last_name": student.last_name,
                    "first_name": student.first_name,
                    "email": student.email,
                    "max_score": assignment.max_score,
                }
                submission = submissions.get(student.id)
                if submission is not None and is_marked(submission):
                    penalty = submission.late_submission_penalty
                    row |= {
                        "duedate": submission.duedate,
                        "timestamp": submission.timestamp,
                        "raw_score": submission.score,
                        "late_submission_penalty": penalty,
                        "score": max(0.0, submission.score - penalty),
                        "to_mark": sum(mark is None for mark in questions(submission).values()),
                    }
                writer.writerow(row)
