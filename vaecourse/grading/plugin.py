"""What `nbgrader export` calls."""

from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import ExportPlugin

from vaecourse.grading.export import write_csv


class MarksCsv(ExportPlugin):
    """`export`'s file: nbgrader's own quotes nothing and writes 0 for no submission."""

    def export(self, gradebook: Gradebook) -> None:
        path = Path(self.to or "grades.csv")
        students, assignments = map(str, self.student), map(str, self.assignment)
        write_csv(gradebook, path, students=list(students), assignments=list(assignments))
        self.log.info("Marks exported to %s", path)
