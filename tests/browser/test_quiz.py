"""The quizzes, by mouse and by keyboard."""

import pytest

from tests.book.site import page_text, toc_pages

PAGES = [page for page in toc_pages() if "```{quiz}" in page_text(page)]


def status(quiz) -> str:
    return quiz.get_by_role("status").inner_text()


@pytest.mark.parametrize("page", PAGES)
def test_ticking_what_is_true_is_judged_correct_in_each_quiz(visit, page) -> None:
    with visit() as v:
        v.open(f"book/{page}.html", typeset=False)
        for quiz in v.page.locator("fieldset.quiz").all():
            options = quiz.locator(".quiz-option")
            assert options.count() >= 2
            for option in options.all():
                assert not option.locator(".quiz-feedback").is_visible()
                if option.get_attribute("data-true") == "true":
                    option.get_by_role("checkbox").check()
            quiz.get_by_role("button", name="Check").click()
            assert status(quiz) == f"All {options.count()} judged correctly."
            assert all(option.is_visible() for option in quiz.locator(".quiz-feedback").all())
        assert v.complaints == []


def test_a_wrong_tick_is_told_from_a_right_one_and_can_be_mended(visit) -> None:
    with visit() as v:
        v.open(f"book/{PAGES[0]}.html", typeset=False)
        quiz = v.page.locator("fieldset.quiz").first
        options = quiz.locator(".quiz-option").all()
        for option in options:
            box = option.get_by_role("checkbox")
            box.set_checked(option.get_attribute("data-true") != "true")
        quiz.get_by_role("button", name="Check").click()
        assert status(quiz).startswith(f"0 of {len(options)} judged correctly")
        truth = options[0].get_attribute("data-true").capitalize()
        assert options[0].locator(".quiz-verdict").inner_text() == f"✗ {truth}."
        options[0].locator("label").click()
        assert status(quiz) == ""
        assert not options[0].locator(".quiz-feedback").is_visible()
        quiz.get_by_role("button", name="Check").click()
        assert status(quiz).startswith(f"1 of {len(options)} judged correctly")
        assert options[0].locator(".quiz-verdict").inner_text() == f"✓ {truth}."


def test_a_quiz_needs_no_mouse(visit) -> None:
    with visit() as v:
        v.open(f"book/{PAGES[0]}.html", typeset=False)
        quiz = v.page.locator("fieldset.quiz").first
        options = quiz.locator(".quiz-option").all()
        quiz.get_by_role("checkbox").first.focus()
        for option in options:
            if option.get_attribute("data-true") == "true":
                v.page.keyboard.press("Space")
            v.page.keyboard.press("Tab")
        v.page.keyboard.press("Enter")  # the button
        assert status(quiz) == f"All {len(options)} judged correctly."
        described = quiz.get_by_role("checkbox").first.get_attribute("aria-describedby")
        assert v.page.locator(f"#{described}").is_visible()
