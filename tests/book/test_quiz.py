"""The `{quiz}` directive makes an accessible form, and says what is wrong with a bad quiz."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.book.site import BOOK

CONF = f"""
import sys
sys.path.insert(0, {str(BOOK / "_ext")!r})
extensions = ["myst_parser", "course_quiz"]
myst_enable_extensions = ["dollarmath"]
"""
GOOD = """
```{quiz} Is $x$ positive? See [elsewhere](#quiz-demo).
:name: quiz-demo
- [x] It is, for $x = 1$.
  Because $1 > 0$.
- [ ] It is not.
  A first paragraph.

  A second, with `code`.
```
"""


def render(folder: Path, quiz: str) -> tuple[int, str, str]:
    """Build a page that holds the quiz: the exit status, the page, and the warnings."""
    (folder / "conf.py").write_text(CONF, encoding="utf8")
    (folder / "index.md").write_text(f"# Title\n{quiz}", encoding="utf8")
    command = [sys.executable, "-m", "sphinx", "-qWn", "--keep-going", folder, folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True)
    page = folder / "html" / "index.html"
    return done.returncode, page.read_text(encoding="utf8") if page.is_file() else "", done.stderr


def test_quiz_is_a_fieldset_of_labelled_checkboxes_with_hidden_feedback(tmp_path: Path) -> None:
    status, page, warnings = render(tmp_path, GOOD)
    assert (status, warnings) == (0, "")
    quiz = re.search(r'<fieldset class="quiz" id="quiz-demo">.*?</fieldset>', page, re.S)[0]
    assert re.findall(r'data-true="(\w+)"', quiz) == ["true", "false"]
    assert quiz.count('<label><input type="checkbox"') == 2
    assert quiz.count("<legend>") == 1
    assert quiz.count('<div class="quiz-feedback" hidden>') == 2
    assert 'role="status"' in quiz and '<button type="button"' in quiz
    assert not re.search(r"<(label|legend)>[^\0]*?<p\b[^\0]*?</\1>", quiz), "no block in a label"
    assert "[x]" not in quiz and "A second" in quiz


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("- [x] Alone.\n  Yes.", "A quiz needs at least two options"),
        ("- [x] One.\n  Yes.\n- [ ] Two.", "A quiz option has no feedback below it: Two."),
        ("- [x] One.\n  Yes.\n- [] Two.\n  No.", "neither an option nor indented feedback: - []"),
    ],
)
def test_a_bad_quiz_fails_the_build_with_a_sentence(body, sentence, tmp_path: Path) -> None:
    status, _, warnings = render(tmp_path, f"\n```{{quiz}} Which?\n{body}\n```\n")
    assert status != 0 and sentence in warnings
