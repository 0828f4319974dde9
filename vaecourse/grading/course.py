"""Where a course keeps its files, and the record that lets unchanged work be skipped."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from vaecourse.grading import CourseFolderError, NotReleased, UnknownAssignment


def digest(*parts: Path | str) -> str:
    """SHA-256 over strings and over the contents of files; a file that is absent counts as such."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            content = b"text " + part.encode()
        else:
            content = b"file " + part.read_bytes() if part.is_file() else b"absent"
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


class Record:
    """What each step last made, from which inputs: a JSON file, replaced whole at each entry.

    A file that is damaged or lost costs time only: everything is done again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            entries = {}
        self._entries: dict[str, Any] = entries if isinstance(entries, dict) else {}

    def get(self, *key: str) -> dict[str, Any]:
        """The entry of that key; empty where there is none."""
        entry = self._entries.get("/".join(key))
        return entry if isinstance(entry, dict) else {}

    def put(self, *key: str, entry: dict[str, Any]) -> None:
        self._entries["/".join(key)] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self._entries, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(fresh, self.path)


@dataclass(frozen=True)
class Course:
    """A repository with `nbgrader_config.py` and `solutions/`, and nbgrader's folder in it."""

    root: Path
    config: Config

    @classmethod
    def open(cls, root: Path) -> "Course":
        """Read the configuration. Raises CourseFolderError where it is missing or fails."""
        path = root.resolve() / "nbgrader_config.py"
        if not path.is_file():
            raise CourseFolderError(
                f"There is no nbgrader_config.py in {root.resolve()}: run this from the folder "
                "that holds it."
            )
        try:
            # nbgrader itself would log a broken file and grade with its defaults.
            config = PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
            folder = config.CourseDirectory.root
        except Exception as error:
            raise CourseFolderError(
                f"{path} fails with {type(error).__name__} ({error}): mend it first, because "
                "nbgrader would silently use its own settings."
            ) from error
        if not isinstance(folder, str):
            raise CourseFolderError(f"{path} does not set c.CourseDirectory.root: set it.")
        return cls(root.resolve(), config)

    @property
    def folder(self) -> Path:
        """nbgrader's root: source, release, submitted, autograded, feedback and the gradebook."""
        return Path(self.config.CourseDirectory.root)

    @property
    def course_id(self) -> str:
        return str(self.config.CourseDirectory.course_id)

    @property
    def db_url(self) -> str:
        given = self.config.CourseDirectory.get("db_url")
        return given if isinstance(given, str) else f"sqlite:///{self.folder / 'gradebook.db'}"

    @cached_property
    def record(self) -> Record:
        return Record(self.folder / "record.json")

    def assignments(self, names: Iterable[str] = ()) -> list[str]:
        """The named assignments, or all. Raises UnknownAssignment."""
        known = sorted(
            p.parent.name for p in self.root.glob("solutions/*/*.md") if p.stem == p.parent.name
        )
        names = list(names)
        for name in names:
            if name not in known:
                raise UnknownAssignment(
                    f"There is no assignment {name!r}: choose from {', '.join(known) or 'none'}, "
                    f"or write solutions/{name}/{name}.md."
                )
        return names or known

    def solution(self, assignment: str) -> Path:
        return self.root / "solutions" / assignment / f"{assignment}.md"

    def source(self, assignment: str) -> Path:
        """The notebook with reference answers and hidden tests."""
        return self.folder / "source" / assignment / f"{assignment}.ipynb"

    def release(self, assignment: str) -> Path:
        """The notebook that students get."""
        return self.folder / "release" / assignment / f"{assignment}.ipynb"

    def submitted(self, assignment: str, student: str) -> Path:
        return self.folder / "submitted" / student / assignment / f"{assignment}.ipynb"

    def autograded(self, assignment: str, student: str) -> Path:
        return self.folder / "autograded" / student / assignment / f"{assignment}.ipynb"

    def feedback(self, assignment: str, student: str) -> Path:
        return self.folder / "feedback" / student / assignment / f"{assignment}.html"

    def version(self, assignment: str) -> str:
        """Names everything but the submission that a mark depends on."""
        code = sorted(Path(__file__).parent.glob("*.py"))
        packages = (f"{name} {version(name)}" for name in ("nbgrader", "nbclient", "torch"))
        return digest(self.solution(assignment), self.root / "nbgrader_config.py", *code, *packages)

    def require_release(self, assignment: str) -> None:
        """Raises NotReleased unless the release was proved and its source is still the same."""
        proved = self.record.get("release", assignment).get("version")
        if not self.source(assignment).is_file() or not self.release(assignment).is_file():
            proved = None
        if not self.has_gradebook():
            proved = None
        if proved != self.version(assignment):
            state = (
                "has not been released yet" if proved is None else "has changed since its release"
            )
            raise NotReleased(
                f"Assignment {assignment!r} {state}: run `vaecourse release {assignment}`."
            )

    def has_gradebook(self) -> bool:
        """Whether there is one; of another database than SQLite it cannot be told, so yes."""
        return not self.db_url.startswith("sqlite:") or self.gradebook_digest() is not None

    def gradebook_digest(self) -> str | None:
        """Names the gradebook's contents; None where it is no SQLite file, so cannot be told."""
        path = Path(self.db_url.removeprefix("sqlite:///"))
        return digest(path) if path.is_file() else None
