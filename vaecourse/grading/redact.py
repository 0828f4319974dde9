"""What a feedback page must not show."""

import re
from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor

HIDDEN = re.compile(r"\n*^### BEGIN HIDDEN TESTS.*?(^### END HIDDEN TESTS|\Z)", re.M | re.S)


class Redact(NbGraderPreprocessor):
    """Cut hidden checks, and the tracebacks that quote their lines.

    nbgrader's own ClearHiddenTests fails where a student has written its marks in a cell.
    """

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        cell.source = HIDDEN.sub("", cell.source)
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources
