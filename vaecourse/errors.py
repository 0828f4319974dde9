"""The root of all errors that are a user's to mend."""


class CourseError(Exception):
    """One sentence saying what is wrong and how to mend it; the command line prints just that."""
