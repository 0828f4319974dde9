"""Grading a class, one submission at a time, so that none can stop the others."""

import shutil
from collections.abc import Callable, Collection, Iterable
from glob import escape
from pathlib import Path

from vaecourse.grading import NoSubmission, NotReleased
from vaecourse.grading.course import Course, digest
from vaecourse.grading.marks import Mark, State, forget, gradebook, is_marked, questions


def grade(
    *,
    root: Path = Path(),
    assignments: Iterable[str] = (),
    students: Iterable[str] = (),
    regrade: bool = False,
    on_mark: Callable[[str, str, State], None] | None = None,
) -> list[Mark]:
    """Grade the submissions in `_course/submitted` and return every mark of those assignments.

    A submission that was graded before under the same assignment is not run again, unless
    `regrade`. Without names, all assignments that somebody submitted, and all students. `on_mark`
    is called with assignment, student and state as each submission is done.

    Raises UnknownAssignment, NotReleased, NoSubmission or CourseFolderError before anything is run.
    """
    course = Course.open(root)
    names, wanted = list(assignments), list(students)
    handed_in = {name: _submitters(course, name) for name in course.assignments(names)}
    if not names:
        handed_in = {name: who for name, who in handed_in.items() if who}
    for student in wanted:
        if not any(student in who for who in handed_in.values()):
            raise NoSubmission(
                f"Student {student!r} has handed in nothing: put the notebook at "
                f"{course.submitted(next(iter(handed_in), '<assignment>'), student)}."
            )
    for name, who in handed_in.items():
        course.require_release(name)
        if not who:
            raise _nothing(course, name)
    if not handed_in:
        raise _nothing(course, "<assignment>")

    marks = []
    for name, who in handed_in.items():
        have = {mark.student for mark in _marks(course, name) if mark.score is not None}
        fresh = set()
        for student in [s for s in who if s in wanted or not wanted]:
            key = digest(course.version(name), *_files(course.submitted(name, student).parent))
            noted = course.record.get("grade", name, student)
            lost = noted.get("marked") and student not in have  # the gradebook was replaced
            if noted.get("key") == key and not lost and not regrade:
                continue
            state, message, marked = _grade_one(course, name, student)
            entry = {"state": state, "message": message, "marked": marked}
            if state is not State.OUR_FAULT:  # which is tried again
                entry["key"] = key
            course.record.put("grade", name, student, entry=entry)
            fresh.add(student)
            if on_mark:
                on_mark(name, student, state)
        marks += [m for m in _marks(course, name, fresh) if m.student in wanted or not wanted]
    return marks


def _nothing(course: Course, name: str) -> NoSubmission:
    return NoSubmission(
        f"There is nothing to grade: put each notebook at {course.submitted(name, '<student>')}."
    )


def _submitters(course: Course, assignment: str) -> list[str]:
    folders = course.folder.glob(f"submitted/[!.]*/{assignment}")
    return sorted(folder.parent.name for folder in folders if folder.is_dir())


def _files(folder: Path) -> list[Path | str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [part for path in files for part in (str(path.relative_to(folder)), path)]


def _grade_one(course: Course, assignment: str, student: str) -> tuple[State, str, bool]:
    """Run one submission; return how it went, a sentence, and whether it has marks now."""
    from vaecourse.grading.convert import ConversionError, convert
    from vaecourse.grading.rebuild import read
    from vaecourse.grading.run import findings

    if escape(student) != student:  # nbgrader would take it for a pattern
        sentence = f"nbgrader takes the folder name {student!r} for a pattern: rename the folder."
        return State.OUR_FAULT, sentence, False
    path = course.submitted(assignment, student)
    autograded = course.autograded(assignment, student)
    for earlier in (autograded.parent, course.feedback(assignment, student).parent):
        shutil.rmtree(earlier, ignore_errors=True)
    if path.is_symlink() or not path.is_file():
        forget(course, assignment, student)
        return State.STUDENT_ERROR, f"The submission has no {path.name}.", False
    try:
        read(path)
    except ValueError as error:
        forget(course, assignment, student)
        return State.STUDENT_ERROR, str(error), False
    try:
        convert(course, "Autograde", assignment, student)
        state, message = findings(read(autograded))
    except (ConversionError, ValueError) as error:
        state, message = State.OUR_FAULT, f"nbgrader failed ({error})."
    if state is State.OUR_FAULT:
        forget(course, assignment, student)
    return state, message, state is not State.OUR_FAULT


def _marks(course: Course, assignment: str, fresh: Collection[str] = ()) -> list[Mark]:
    """Every student's mark. The gradebook is opened only if it has changed since the last look."""
    seen = course.gradebook_digest()
    submitters = _submitters(course, assignment)
    key = None if seen is None else digest(seen, *submitters)
    entry = course.record.get("marks", assignment)
    if not fresh and key is not None and entry.get("key") == key:
        return [Mark.from_json(mark) for mark in entry["marks"]]

    marks = []
    with gradebook(course) as book:
        if assignment not in [known.name for known in book.assignments]:
            course.record.put("release", assignment, entry={})
            raise NotReleased(
                f"Assignment {assignment!r} is not in the gradebook: run "
                f"`vaecourse release {assignment}`."
            )
        max_score = float(book.find_assignment(assignment).max_score)
        submissions = {s.student.id: s for s in book.assignment_submissions(assignment)}
        for student in sorted({s.id for s in book.students} | set(submitters)):
            submission = submissions.get(student)
            score = None
            if submission is not None and is_marked(submission):
                score = float(submission.score)
            noted = course.record.get("grade", assignment, student)
            by_question = questions(submission) if submission is not None else {}
            marks.append(
                Mark(
                    student=student,
                    assignment=assignment,
                    state=State(
                        noted.get("state", State.MISSING if score is None else State.GRADED)
                    ),
                    score=score,
                    max_score=max_score,
                    to_mark=0 if score is None else list(by_question.values()).count(None),
                    questions=by_question,
                    message=noted.get("message", ""),
                    fresh=student in fresh,
                )
            )
    key = digest(course.gradebook_digest() or "", *submitters)
    entry = {"key": key, "marks": [mark.to_json() for mark in marks]}
    course.record.put("marks", assignment, entry=entry)
    return marks
