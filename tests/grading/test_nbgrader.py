"""nbgrader's own commands do the same with the shipped configuration, in no active environment."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

from nbformat import NotebookNode

from vaecourse.grading.rebuild import grade_id, read, write


def nbgrader(root: Path, home: Path, *arguments: str) -> int:
    command = [sys.executable, "-m", "nbgrader", *arguments, "--log-level=ERROR"]
    environment = os.environ | {"PATH": os.defpath, "HOME": str(home)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True).returncode


def test_plain_commands_release_grade_and_export(released: Path, tmp_path: Path) -> None:
    root = shutil.copytree(released, tmp_path / "course")
    proved = (root / "_course/release/toy/toy.ipynb").read_bytes()
    for made in ("release/toy/toy.ipynb", "gradebook.db"):
        (root / "_course" / made).unlink()
    assert nbgrader(root, tmp_path, "generate_assignment", "toy", "--force") == 0
    assert (root / "_course/release/toy/toy.ipynb").read_bytes() == proved

    doubled = read(root / "_course/source/toy/toy.ipynb")
    for cell in [cell for cell in doubled.cells if grade_id(cell)]:
        doubled.cells.append(NotebookNode({**cell, "id": f"{cell.id}-again"}))
    write(doubled, root / "_course/submitted/doubled/toy/toy.ipynb")
    release = root / "_course/release/toy/toy.ipynb"
    write(read(release), root / "_course/submitted/untouched/toy/toy.ipynb")
    assert nbgrader(root, tmp_path, "autograde", "toy") == 0
    assert nbgrader(root, tmp_path, "export", "--to", "marks.csv") == 0
    with (root / "marks.csv").open(newline="", encoding="utf-8") as file:
        scores = {row["student_id"]: row["score"] for row in csv.DictReader(file)}
    assert scores == {"doubled": "4.0", "untouched": "0.0"}
