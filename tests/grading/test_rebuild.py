"""A rebuilt submission is ours but for the student's sources."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from vaecourse.grading.marks import State
from vaecourse.grading.rebuild import answers, grade_id, is_check, read, rebuild
from vaecourse.grading.run import findings

DEAD, SLOW = "DeadKernelError", "CellTimeoutError"
Parts = Callable[[str], NotebookNode]  # "source" or "release" to that notebook, read anew


@pytest.fixture
def parts(released: Path) -> Parts:
    return lambda step: read(released / f"_course/{step}/toy/toy.ipynb")


def put(notebook: NotebookNode, name: str, text: str) -> None:
    (cell,) = [cell for cell in notebook.cells if grade_id(cell) == name]
    cell.source = text


def rebuilt(parts: Parts, submitted: NotebookNode) -> NotebookNode:
    notebook = rebuild(parts("source"), parts("release"), submitted)
    nbformat.validate(notebook)
    return notebook


def test_answers_are_taken_and_nothing_else_of_their_cells(parts: Parts) -> None:
    submitted = parts("release")
    put(submitted, "q1-answer", "area = lambda r: 0")
    for cell in submitted.cells:
        cell.metadata["tags"] = ["skip-execution"]
        cell.metadata.get("nbgrader", {})["points"] = 100
        if cell.cell_type == "code":
            cell.outputs = [new_output("stream", text="forged")]
    notebook = rebuilt(parts, submitted)
    assert answers(notebook)["q1-answer"] == "area = lambda r: 0"
    assert "skip-execution" not in str(notebook) and "forged" not in str(notebook)
    assert [c.metadata.nbgrader.points for c in notebook.cells if is_check(c)] == [2, 2]


def test_checks_are_ours_whatever_was_done_to_them(parts: Parts) -> None:
    submitted = parts("release")
    put(submitted, "q1-area", "pass")
    submitted.cells = [c for c in submitted.cells if grade_id(c) != "q3-things"][::-1]
    ours = [cell.source for cell in parts("source").cells if is_check(cell)]
    assert [c.source for c in rebuilt(parts, submitted).cells if is_check(c)] == ours


def test_absent_answer_is_the_untouched_one(parts: Parts) -> None:
    submitted = parts("release")
    submitted.cells = []
    assert answers(rebuilt(parts, submitted)) == answers(parts("release"))


def test_split_answer_is_joined_and_a_copied_one_is_not_doubled(parts: Parts) -> None:
    submitted = parts("release")
    (index,) = [i for i, c in enumerate(submitted.cells) if grade_id(c) == "q1-answer"]
    first = submitted.cells[index]
    first.source = "def square(x): return x * x"
    second = NotebookNode({**first, "source": "def area(r): return math.pi * square(r)"})
    submitted.cells[index : index + 1] = [first, second, second]
    joined = f"{first.source}\n\n{second.source}"
    assert answers(rebuilt(parts, submitted))["q1-answer"] == joined


def test_own_cells_stay_behind_the_cell_that_they_followed(parts: Parts) -> None:
    submitted = parts("release")
    (index,) = [i for i, c in enumerate(submitted.cells) if grade_id(c) == "setup"]
    own = [new_code_cell("helper = 1"), new_markdown_cell("My note."), new_code_cell("  ")]
    own[0].metadata["nbgrader"] = {"grade_id": "invented", "solution": True}
    submitted.cells[index + 1 : index + 1] = own
    sources = [cell.source for cell in rebuilt(parts, submitted).cells]
    place = sources.index("helper = 1")
    assert sources[place - 1] == "import math" and sources[place + 1] == "My note."
    assert "  " not in sources and sources.count("Say why.") == 1


@pytest.mark.parametrize(
    "content", ["", "not json", "[1]", '{"cells": 3}', '{"nbformat": 4}', "{}"]
)
def test_file_that_is_no_notebook_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "toy.ipynb"
    path.write_text(content)
    with pytest.raises(ValueError, match="toy.ipynb is not a notebook: save it again in Jupyter."):
        read(path)


@pytest.mark.parametrize(
    ("errors", "state", "place"),
    [
        ({}, State.GRADED, ""),
        ({"q1-area": "AssertionError"}, State.GRADED, ""),
        ({"q1-answer": "NotImplementedError"}, State.GRADED, ""),
        ({"q1-answer": "NameError", "q1-area": "NameError"}, State.STUDENT_ERROR, "q1-answer"),
        ({"q1-answer": "NameError", "q3-answer": SLOW}, State.TIMED_OUT, "q3-answer"),
        ({"q1-area": DEAD, "q3-answer": DEAD}, State.STUDENT_ERROR, "q1-area"),
        ({"setup": "ImportError", "q1-area": "NameError"}, State.OUR_FAULT, "setup"),
        ({"setup": DEAD, "q1-area": DEAD}, State.OUR_FAULT, "setup"),
    ],
)
def test_states_are_told_apart(
    parts: Parts, errors: dict[str, str], state: State, place: str
) -> None:
    notebook = parts("source")
    for cell in notebook.cells:
        if name := errors.get(grade_id(cell) or ""):
            cell.outputs = [new_output("error", ename=name, evalue="", traceback=[])]
    found, sentence = findings(notebook)
    assert found is state and place in sentence
