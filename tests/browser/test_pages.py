"""Every page in a browser: dark on a phone, then light on a wide screen."""

import pytest

from tests.book.site import toc_pages

PAGES = [f"book/{page}.html" for page in toc_pages()] + ["search.html"]

UNTYPESET = """() => [...document.querySelectorAll(".math.notranslate")]
  .filter(node => !node.querySelector("mjx-container") || node.querySelector("mjx-merror"))
  .map(node => node.textContent)"""
TOO_WIDE = """() => {
  const screen = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("article mjx-container, article img, article table")]
    .filter(node => node.getBoundingClientRect().right > screen + 1)
    .map(node => node.outerHTML.slice(0, 200));
  const page = document.documentElement.scrollWidth;
  return page > screen ? [`the page is ${page} wide`, ...wide] : wide;
}"""
WITHOUT_ALT = """() => [...document.querySelectorAll("article img")]
  .filter(image => !image.alt.trim() || !image.naturalWidth).map(image => image.src)"""
VIOLATIONS = """async rules => {
  const options = {resultTypes: ["violations"], preload: false};
  if (rules) options.runOnly = rules;
  const {violations} = await axe.run(options);
  return violations.map(rule => [rule.id, rule.help, ...rule.nodes.slice(0, 3).map(n => n.html)]);
}"""
# MathJax's markup is its own authors' to test; without it the rest is tested twice as fast.
WORDS_FOR_MATHS = """() => {
  for (const node of document.querySelectorAll("mjx-container")) node.replaceWith("maths");
}"""
THEME = "document.documentElement.dataset.theme"


@pytest.mark.parametrize("path", PAGES)
def test_page_is_whole_self_contained_and_accessible(visit, axe, path) -> None:
    with visit("dark", 390) as v:
        v.open(path)
        assert v.page.evaluate(THEME) == "dark"
        assert v.page.evaluate(UNTYPESET) == [], "equations left untypeset"
        assert v.page.evaluate(TOO_WIDE) == [], "wider than the screen"
        assert v.page.evaluate(WITHOUT_ALT) == [], "images without alternative text, or broken"
        assert v.elsewhere == [], "requests to other hosts"
        assert v.complaints == [], "the console's complaints"
        following = [page.removeprefix("book/") for page in PAGES[PAGES.index(path) + 1 : -1]][:1]
        links = v.page.locator("a.right-next").all()
        assert [link.get_attribute("href") for link in links] == following

        v.page.evaluate(WORDS_FOR_MATHS)
        v.page.evaluate(axe)
        what_colours_and_width_change = ["color-contrast", "scrollable-region-focusable"]
        assert v.page.evaluate(VIOLATIONS, what_colours_and_width_change) == []

        v.page.set_viewport_size({"width": 1280, "height": 900})
        v.page.emulate_media(color_scheme="light")
        v.page.wait_for_function(f"{THEME} == 'light'")
        assert v.page.evaluate(TOO_WIDE) == [], "wider than the screen"
        assert v.page.evaluate(VIOLATIONS) == []


def test_first_address_leads_to_the_introduction(visit) -> None:
    with visit() as v:
        v.page.goto(v.address)
        v.page.wait_for_url("**/book/intro.html")


def test_sidebar_leads_to_a_chapter_and_the_logo_back(visit) -> None:
    with visit() as v:
        v.open(PAGES[0], typeset=False)
        v.page.locator("nav.bd-links a", has_text="KL").click()
        v.page.wait_for_url("**/book/kl.html")
        v.page.locator(".course-logo a").click()
        v.page.wait_for_url("**/book/intro.html")


def test_search_finds_a_page_by_a_word(visit) -> None:
    with visit() as v:
        v.open("search.html?q=Gaussian")
        v.page.locator("#search-results a").first.wait_for()
        assert v.complaints == []


def test_theme_switch_is_remembered_on_the_next_page(visit) -> None:
    with visit() as v:
        v.open(PAGES[0], typeset=False)
        assert v.page.evaluate(THEME) == "light"
        for _ in range(3):  # the switch goes round light, dark and automatic
            v.page.locator("button.theme-switch-button:visible").click()
            if v.page.evaluate(THEME) == "dark":
                break
        v.open(PAGES[1], typeset=False)
        assert v.page.evaluate(THEME) == "dark"
