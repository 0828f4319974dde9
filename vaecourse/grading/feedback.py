"""One page a student and assignment: their notebook, with marks and comments."""

from collections.abc import Iterable
from pathlib import Path

from vaecourse.grading import GradingError, NoSubmission
from vaecourse.grading.course import Course, digest


def feedback(
    *, root: Path = Path(), assignments: Iterable[str] = (), students: Iterable[str] = ()
) -> list[Path]:
    """Write nbgrader's feedback pages for graded submissions, and return their paths.

    Pages whose notebook and gradebook have not changed are left as they are.

    Raises UnknownAssignment, NoSubmission where nothing has been graded, or GradingError.
    """
    course = Course.open(root)
    wanted = list(students)
    pages = []
    for name in course.assignments(assignments):
        graded = sorted(
            p.parents[1].name for p in course.folder.glob(f"autograded/*/{name}/{name}.ipynb")
        )
        for student in wanted:
            if student not in graded:
                raise NoSubmission(
                    f"{name!r} of {student!r} is not graded: run `vaecourse grade` first."
                )
        pages += [_page(course, name, s) for s in graded if s in wanted or not wanted]
    if not pages:
        raise NoSubmission("Nothing has been graded yet: run `vaecourse grade` first.")
    return pages


def _page(course: Course, assignment: str, student: str) -> Path:
    page = course.feedback(assignment, student)
    seen = course.gradebook_digest()
    key = None if seen is None else digest(seen, course.autograded(assignment, student))
    entry = course.record.get("feedback", assignment, student)
    if key is not None and entry.get("key") == key and page.is_file():
        return page

    from vaecourse.grading.convert import ConversionError, convert

    try:
        convert(course, "GenerateFeedback", assignment, student)
    except ConversionError as error:
        raise GradingError(
            f"nbgrader cannot write the feedback of {student!r} on {assignment!r} ({error}): grade "
            "it again with `vaecourse grade --regrade`."
        ) from error
    course.record.put("feedback", assignment, student, entry={"key": key})
    return page
