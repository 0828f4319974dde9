"""The book, the package and the tests speak of the same things by the same names."""

import re

import pytest
import yaml

from tests.book.site import CHAPTERS, ROOT, page_text, toc_pages

MODULES = sorted((ROOT / "vaecourse").rglob("*.py"))


def labels() -> set[str]:
    """The labels of the equations of the book."""
    return set(re.findall(r"^:label: (eq-[\w-]+)$", "\n".join(map(page_text, toc_pages())), re.M))


def words_of_code() -> set[str]:
    """Every word in the modules and in the pages' code cells."""
    code = [path.read_text(encoding="utf8") for path in MODULES]
    for page in toc_pages():
        code += re.findall(r"^```\{code-cell\}.*?^```$", page_text(page), re.M | re.S)
    return set(re.findall(r"\w+", "\n".join(code)))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_each_equation_that_a_module_cites_stands_in_the_book(path) -> None:
    cited = set(re.findall(r"\beq-[a-z][\w-]*\w", path.read_text(encoding="utf8")))
    assert cited <= labels(), f"{path.name} cites {sorted(cited - labels())}, absent from book/."


@pytest.mark.parametrize("stem", CHAPTERS)
def test_each_chapter_has_its_page_module_and_tests(stem: str) -> None:
    for path in (f"book/{stem}.md", f"vaecourse/{stem}.py", f"tests/test_{stem}.py"):
        assert (ROOT / path).is_file(), f"{path} is missing."


@pytest.mark.parametrize("stem", CHAPTERS)
def test_each_chapter_has_what_a_reader_counts_on(stem: str) -> None:
    page = page_text(stem)
    wanted = {
        "a question": r"^\*\*The question\.\*\*",
        "an equation with a label of its own": rf"^:label: eq-{stem}-",
        "a computed figure with a name": r"name: fig-",
        "what to remember": r"^## What to remember$",
        "an import of its module": rf"vaecourse\.{stem}\b|from vaecourse import .*\b{stem}\b",
        "an assertion that code and module agree": r"^\s*(assert |torch\.testing\.assert_)",
    }
    missing = [what for what, pattern in wanted.items() if not re.search(pattern, page, re.M)]
    assert not missing, f"book/{stem}.md lacks {', '.join(missing)}."


@pytest.mark.parametrize("page", toc_pages())
def test_each_figure_has_alternative_text_and_a_caption(page: str) -> None:
    for cell in re.findall(r"```\{code-cell\}.*?^```$", page_text(page), re.M | re.S):
        if "plt.show()" in cell:
            header = re.search(r"\A[^\n]*\n---\n(.*?)\n---\n", cell, re.S)
            assert header, f"A figure without metadata: {cell}"
            metadata = yaml.safe_load(header[1])["mystnb"]
            assert len(metadata["image"]["alt"].split()) > 5
            assert metadata["figure"]["caption"] and metadata["figure"]["name"].startswith("fig-")


def test_each_code_name_of_the_notation_page_is_used_in_code() -> None:
    rows = re.findall(r"^\|[^|]*\| `(\w+)`<br>", page_text("notation"), re.M)
    assert len(rows) > 15
    missing = sorted(set(rows) - words_of_code())
    assert not missing, f"book/notation.md names {missing}, which no module or page uses."


def test_no_label_is_given_twice() -> None:
    text = "\n".join(map(page_text, toc_pages()))
    found = re.findall(r"^:label: (\S+)$", text, re.M) + re.findall(
        r"name: ((?:fig|quiz)-[\w-]+)", text
    )
    assert sorted(found) == sorted(set(found))


def test_each_citation_has_its_entry() -> None:
    text = "\n".join(map(page_text, toc_pages()))
    cited = {key for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", text) for key in keys.split(",")}
    entries = re.findall(r"^@\w+\{(\w+),", (ROOT / "book/references.bib").read_text(), re.M)
    assert sorted(entries) == sorted(set(entries))
    assert cited <= set(entries)
