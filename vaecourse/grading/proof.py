"""What is proved of a release before a student sees it."""

from nbformat import NotebookNode

from vaecourse.grading import ProofError
from vaecourse.grading.course import Course
from vaecourse.grading.rebuild import grade_id, is_answer, rebuild
from vaecourse.grading.run import earned, findings, run


def prove(course: Course, source: NotebookNode, release: NotebookNode) -> None:
    """Hold a release to its three promises. Raises ProofError, which names the cell."""
    secrets = _secrets(source)
    for cell in release.cells:
        for line in cell.source.splitlines():
            if line.strip() in secrets:
                raise ProofError(
                    f"The release shows {line.strip()!r} in cell {grade_id(cell)}, which is part "
                    "of an answer or of a hidden check: reword the one or the other."
                )
        if cell.get("outputs"):
            raise ProofError(f"The release has outputs in cell {grade_id(cell)}: remove them.")

    reference = run(rebuild(source, release, source), config=course.config)
    for name, (marks, points) in earned(reference).items():
        if marks is not None and marks != points:
            raise ProofError(
                f"The reference answer earns {marks:g} of {points:g} marks in {name}: "
                f"mend the answer or the check ({_error(reference, name)})."
            )
    if (sentence := findings(reference)[1]) != "":
        raise ProofError(f"The reference notebook does not run ({sentence[:-1]}): mend that cell.")
    untouched = run(rebuild(source, release, release), config=course.config)
    for name, (marks, points) in earned(untouched).items():
        if marks != 0:
            raise ProofError(
                f"The untouched release earns {marks or points:g} marks in {name}: "
                "make its check fail without an answer."
            )


def _secrets(source: NotebookNode) -> set[str]:
    """The lines that students must not see, found without nbgrader's help.

    Short lines (`return x`) give nothing away, nor do lines of a hidden check that stand openly in
    another check.
    """
    answers: set[str] = set()
    hidden: set[str] = set()
    shown: set[str] = set()
    for cell in source.cells:
        lines = [line.strip() for line in cell.source.splitlines()]
        inside = is_answer(cell) and not any(line.startswith("### BEGIN") for line in lines)
        for line in lines:
            if line.startswith(("### BEGIN", "### END")):
                inside = line.startswith("### BEGIN")
                answers.add(line)
            elif inside:
                (answers if is_answer(cell) else hidden).add(line)
            else:
                shown.add(line)
    return {line for line in answers | (hidden - shown) if len(line) >= 12}


def _error(notebook: NotebookNode, name: str) -> str:
    for cell in notebook.cells:
        for output in cell.get("outputs", []) if grade_id(cell) == name else []:
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue}"
    return "no error was raised"
