"""nbgrader's settings for this course: run plain `nbgrader …` from the folder that holds this file.

`vaecourse release`, `grade`, `feedback` and `export` read the same file.
"""

import os
import sysconfig
from pathlib import Path

# nbgrader calls `alembic` by name when it makes a gradebook, in an active environment or not.
scripts = sysconfig.get_path("scripts")
if scripts not in os.environ.get("PATH", "").split(os.pathsep):
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])

c = get_config()  # noqa: F821 (nbgrader defines it)

c.CourseDirectory.course_id = "vaecourse"
c.CourseDirectory.root = str(Path(__file__).resolve().parent / "_course")

# A submission is rebuilt around our own notebook, so stock sanitizing has nothing left to do.
c.Autograde.sanitize_preprocessors = ["vaecourse.grading.rebuild.Rebuild"]
c.Autograde.autograde_preprocessors = [
    "vaecourse.grading.run.Run",
    "nbgrader.preprocessors.IgnorePattern",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]

c.Execute.timeout = 60  # seconds a cell
c.Execute.kernel_name = "python3"  # never a kernel that the submission names
c.Execute.shutdown_kernel = "immediate"

# A feedback page shows no hidden check, neither its source nor, in a traceback, its lines.
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    "vaecourse.grading.redact.Redact",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]

c.ExportApp.plugin_class = "vaecourse.grading.plugin.MarksCsv"

c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError"}
c.ClearSolutions.text_stub = "*Your answer here.*"
