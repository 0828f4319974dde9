"""One step of nbgrader's on one assignment, in this process."""

import logging
import warnings
from typing import Literal

from nbgrader import converters
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning

from vaecourse.grading.course import Course


class ConversionError(Exception):
    """A step failed; the message is the reason that nbgrader gave to its log."""


class _LastTraceback(logging.Handler):
    """nbgrader logs why a notebook failed, and then raises only that one did."""

    reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if text.startswith("Traceback"):
            self.reason = text.splitlines()[-1]


def convert(
    course: Course,
    step: Literal["GenerateAssignment", "Autograde", "GenerateFeedback"],
    assignment: str,
    student: str = "*",
) -> None:
    """Do the step anew, whatever stands there already. Raises ConversionError."""
    logger, handler = logging.Logger("vaecourse.grading", level=logging.ERROR), _LastTraceback()
    logger.addHandler(handler)
    directory = CourseDirectory(
        config=course.config,
        log=logger,
        assignment_id=assignment,
        student_id=student,
    )
    converter = getattr(converters, step)(
        coursedir=directory, config=course.config, log=logger, force=True
    )
    try:
        with warnings.catch_warnings():
            # nbgrader adds a submission to the gradebook in an order that SQLAlchemy remarks on.
            warnings.filterwarnings("ignore", "Object of type <Submitted", SAWarning)
            converter.start()
    except Exception as error:
        raise ConversionError(handler.reason or str(error)) from error
