"""Running a notebook, and what its outputs say."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client.manager import KernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute
from nbgrader.utils import determine_grade, is_grade
from traitlets.config import Config

from vaecourse.grading.marks import State
from vaecourse.grading.rebuild import grade_id, is_answer, is_check


class Run(Execute):
    """nbgrader's execution, with four things mended.

    A process that dies costs the marks from there on, not the whole submission. What a check
    prints on stderr (a warning, a progress bar) does not turn a right answer into a wrong one.
    The kernel's files go to a folder of their own and not to the home of whoever grades. It
    computes on one thread, so that a mark does not depend on the machine's number of cores.
    """

    def create_kernel_manager(self) -> KernelManager:
        manager = super().create_kernel_manager()
        manager.connection_file = os.path.join(self._private, "kernel.json")
        manager.transport = "ipc" if os.name == "posix" else "tcp"
        return manager

    @contextmanager
    def setup_kernel(self, **kwargs: Any) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="vaecourse-") as self._private:
            environment = os.environ | {"IPYTHONDIR": self._private, "OMP_NUM_THREADS": "1"}
            with super().setup_kernel(env=environment, **kwargs):
                yield

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any], km: KernelManager | None = None
    ) -> tuple[NotebookNode, dict[str, Any]]:
        self._running = 0
        try:
            nb, resources = super().preprocess(nb, resources, km)
        except DeadKernelError:
            for cell in nb.cells[self._running :]:
                if cell.cell_type == "code":
                    name = "DeadKernelError"
                    text = "the Python process ended here or in an earlier cell."
                    error = new_output(
                        "error", ename=name, evalue=text, traceback=[f"{name}: {text}"]
                    )
                    cell.outputs = [error]
        for cell in filter(is_check, nb.cells):
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.name = "stdout"
        return nb, resources

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        self._running = index
        return super().preprocess_cell(cell, resources, index)


def run(notebook: NotebookNode, *, config: Config) -> NotebookNode:
    """Run a notebook in an empty folder, as a submission is run; it is changed in place."""
    with tempfile.TemporaryDirectory(prefix="vaecourse-") as folder:
        resources = {"metadata": {"path": folder}}
        notebook, _ = Run(config=config).preprocess(notebook, resources)
    return notebook


def earned(notebook: NotebookNode) -> dict[str, tuple[float | None, float]]:
    """Marks earned and possible by grade id; None earned where a person must mark."""
    marks = {}
    for cell in filter(is_grade, notebook.cells):
        got, possible = determine_grade(cell)
        marks[grade_id(cell) or ""] = (None if got is None else float(got), float(possible))
    return marks


def findings(notebook: NotebookNode) -> tuple[State, str]:
    """How the run of a rebuilt submission went, and one sentence on it (empty if all went well)."""
    found: dict[State, str] = {}  # the first of each kind
    for cell in notebook.cells:
        name = grade_id(cell)
        ours = bool(name) and not is_answer(cell) and not is_check(cell)
        where = f"cell {name}" if name else "a cell of the student's own"
        for output in cell.get("outputs", []):
            if output.output_type != "error":
                continue
            if ours and not found:  # nothing that the student wrote has failed before it
                found[State.OUR_FAULT] = f"Our {where} fails with {output.ename}."
            elif output.ename == "CellTimeoutError":
                found.setdefault(State.TIMED_OUT, f"The time limit passed in {where}.")
            elif output.ename == "DeadKernelError":
                found.setdefault(State.STUDENT_ERROR, f"The Python process ended in {where}.")
            elif is_answer(cell) and output.ename != "NotImplementedError":
                found.setdefault(State.STUDENT_ERROR, f"{output.ename} in {where}.")
    for state in (State.OUR_FAULT, State.TIMED_OUT, State.STUDENT_ERROR):
        if state in found:
            return state, found[state]
    return State.GRADED, ""
