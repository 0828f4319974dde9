"""From one text file to the notebook that students get, with proofs about it."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vaecourse.grading import ProofError, ReleaseError
from vaecourse.grading.course import Course


@dataclass(frozen=True)
class Release:
    """A proved release; `fresh` says whether it was made now or had not changed."""

    assignment: str
    path: Path
    points: float
    questions: int
    fresh: bool


def release(*, root: Path = Path(), assignments: Iterable[str] = ()) -> list[Release]:
    """Make and prove the students' version of the named assignments, or of all.

    `solutions/<stem>/<stem>.md` becomes nbgrader's source notebook, and that the release. Three
    things are then proved: the reference answers earn full marks, the untouched release earns
    nothing, and no answer or hidden check stands in what students get.

    Raises UnknownAssignment, ReleaseError or ProofError; a release that is not proved is removed.
    """
    course = Course.open(root)
    return [_release(course, name) for name in course.assignments(assignments)]


def _release(course: Course, assignment: str) -> Release:
    version, path = course.version(assignment), course.release(assignment)
    entry = course.record.get("release", assignment)
    made = path.is_file() and course.source(assignment).is_file() and course.has_gradebook()
    if entry.get("version") == version and made:
        return Release(assignment, path, entry["points"], entry["questions"], fresh=False)

    from vaecourse.grading.proof import prove
    from vaecourse.grading.rebuild import read
    from vaecourse.grading.run import earned

    course.record.put("release", assignment, entry={})
    _write_source(course, assignment)
    _generate(course, assignment)
    source = read(course.source(assignment))
    try:
        prove(course, source, read(path))
    except ProofError:
        shutil.rmtree(path.parent)
        raise
    possible = [points for _, points in earned(source).values()]
    entry = {"version": version, "points": sum(possible), "questions": len(possible)}
    course.record.put("release", assignment, entry=entry)
    return Release(assignment, path, sum(possible), len(possible), fresh=True)


def _write_source(course: Course, assignment: str) -> None:
    import jupytext

    from vaecourse.grading.rebuild import grade_id, write

    text = course.solution(assignment).read_text(encoding="utf-8")
    try:
        notebook = jupytext.reads(text, fmt="md:myst")
    except Exception as error:
        raise ReleaseError(
            f"jupytext cannot read {course.solution(assignment)} ({error}): mend the file."
        ) from error
    notebook.metadata.pop("jupytext", None)  # the student's notebook is not paired with a file
    for number, cell in enumerate(notebook.cells):
        cell.id = grade_id(cell) or f"text-{number}"  # the same at every release
    write(notebook, course.source(assignment))


def _generate(course: Course, assignment: str) -> None:
    from vaecourse.grading.convert import ConversionError, convert

    try:
        convert(course, "GenerateAssignment", assignment)
    except ConversionError as error:
        mend = f"mend {course.solution(assignment)}"
        if "submissions associated" in str(error):
            mend = f"remove them with `nbgrader db assignment remove {assignment} --force`"
        raise ReleaseError(f"nbgrader cannot release {assignment!r} ({error}): {mend}.") from error
