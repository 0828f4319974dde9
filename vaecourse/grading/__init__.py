"""Assignments from release to mark, with nbgrader as the record.

One verb a file, each a keyword-only function that returns data: `release.release`,
`sample.sample`, `grade.grade`, `feedback.feedback`, `export.export`. nbgrader takes seconds to
import, so nothing here imports it before there is work for it.

Students' code runs with the rights of whoever grades. Grade strangers' work only in a container
or an account that you can afford to lose.
"""

from vaecourse.errors import CourseError


class GradingError(CourseError):
    """Something that stops a verb; its message is one sentence with the mend."""


class CourseFolderError(GradingError):
    """The course's folder or its nbgrader_config.py is missing or broken."""


class UnknownAssignment(GradingError):
    """No assignment has that name."""


class NotReleased(GradingError):
    """The assignment has no proved release that matches its source."""


class ReleaseError(GradingError):
    """The source of an assignment could not be turned into a student's version."""


class ProofError(ReleaseError):
    """The student's version was made, but a promise about it does not hold."""


class NoSubmission(GradingError):
    """There is nothing to grade where submissions are looked for."""
