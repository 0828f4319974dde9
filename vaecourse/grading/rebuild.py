"""A submission rebuilt around our own notebook: only the student's sources are taken over."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.preprocessors import NbGraderPreprocessor


def read(path: Path) -> NotebookNode:
    """Read a notebook. Raises ValueError where the file holds none."""
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        if all(
            isinstance(cell.source, str) and cell.metadata is not None for cell in notebook.cells
        ):
            return notebook
    except Exception as error:  # nbformat fails in many ways on a file that it did not write
        raise ValueError(f"{path.name} is not a notebook: save it again in Jupyter.") from error
    raise ValueError(f"{path.name} is not a notebook: save it again in Jupyter.")


def write(notebook: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def nbgrader_field(cell: NotebookNode, field: str) -> Any:
    """What nbgrader's metadata says of a cell; None where it says nothing."""
    metadata = cell.metadata.get("nbgrader")
    return metadata.get(field) if isinstance(metadata, dict) else None


def grade_id(cell: NotebookNode) -> str | None:
    name = nbgrader_field(cell, "grade_id")
    return name if isinstance(name, str) else None


def is_answer(cell: NotebookNode) -> bool:
    return bool(nbgrader_field(cell, "solution"))


def is_check(cell: NotebookNode) -> bool:
    """Whether the cell's outputs decide about marks."""
    return cell.cell_type == "code" and bool(nbgrader_field(cell, "grade")) and not is_answer(cell)


def answers(notebook: NotebookNode) -> dict[str, str]:
    """The source of each answer cell, by grade id."""
    return {name: c.source for c in notebook.cells if is_answer(c) and (name := grade_id(c))}


def rebuild(source: NotebookNode, release: NotebookNode, submitted: NotebookNode) -> NotebookNode:
    """Our notebook with the student's answers in it.

    Every cell with a grade id, its order, type, tags and metadata are ours. Of a submission we
    take the sources of answer cells and of the student's own code and text cells, which stay
    behind the cell that they followed. An answer that is absent is the release's empty one; one
    that stands in several cells (Jupyter copies the id when a cell is split) is joined.
    """
    ours = {name for cell in source.cells if (name := grade_id(cell))}
    given: dict[str, list[str]] = defaultdict(list)
    own: dict[str | None, list[NotebookNode]] = defaultdict(list)
    prose = {cell.source for cell in release.cells if grade_id(cell) is None}
    behind = None
    for cell in submitted.cells:
        name = grade_id(cell)
        if name in ours:
            behind = name
            if cell.source not in given[name]:
                given[name].append(cell.source)
        elif cell.cell_type == "code" and cell.source.strip():
            own[behind].append(new_code_cell(cell.source))
        elif cell.cell_type == "markdown" and cell.source not in prose:
            own[behind].append(new_markdown_cell(cell.source))

    empty = {name: cell for cell in release.cells if (name := grade_id(cell))}
    cells = own[None]
    for cell in source.cells:
        cell = NotebookNode({**cell})
        name = grade_id(cell)
        if name and is_answer(cell):
            cell.metadata = empty[name].metadata  # its checksum tells that nothing was written
            cell.source = "\n\n".join(given[name]) if given[name] else empty[name].source
        cells.append(cell)
        cells.extend(own[name] if name else [])
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return NotebookNode({**source, "cells": cells})


class Rebuild(NbGraderPreprocessor):
    """`rebuild` as the one sanitizing step of `nbgrader autograde`."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        names = resources["nbgrader"]
        course = self.parent.parent.coursedir

        def ours(step: str) -> NotebookNode:
            folder = course.format_path(step, ".", names["assignment"])
            return read(Path(folder) / f"{names['notebook']}.ipynb")

        source, release = ours(course.source_directory), ours(course.release_directory)
        return rebuild(source, release, nb), resources
