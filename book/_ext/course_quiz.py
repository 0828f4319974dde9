"""The `{quiz}` directive: statements to tick, with feedback for each, without a kernel.

```{quiz} Which of these holds? Maths may stand anywhere: $x = 1$.
:name: quiz-kl-sign
- [x] A statement that is true, on one line.
  Feedback, shown after checking.
- [ ] A statement that is false.
  Feedback.
```
"""

import re
from html import escape

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

OPTION = re.compile(r"[-*] \[([ xX])\] +(\S.*)")


class quiz(nodes.General, nodes.Element): ...


class quiz_question(nodes.Part, nodes.TextElement): ...


class quiz_option(nodes.Part, nodes.Element): ...


class quiz_statement(nodes.Part, nodes.TextElement): ...


class quiz_feedback(nodes.Part, nodes.TextElement): ...


class QuizDirective(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"name": directives.unchanged_required}
    has_content = True

    def run(self) -> list[nodes.Node]:
        node = quiz()
        node += self.parse(quiz_question(), [self.arguments[0]], 0)
        options: list[tuple[int, bool, str, list[str]]] = []
        for number, line in enumerate(self.content):
            match = OPTION.match(line)
            if match:
                options.append((number, match[1] != " ", match[2], []))
            elif options and (not line.strip() or line.startswith("  ")):
                options[-1][3].append(line[2:])
            elif line.strip():
                raise self.error(f"A quiz line is neither an option nor indented feedback: {line}")
        if len(options) < 2:
            raise self.error("A quiz needs at least two options, written `- [x] …` or `- [ ] …`.")
        for number, right, statement, feedback in options:
            if not "".join(feedback).strip():
                raise self.error(f"A quiz option has no feedback below it: {statement}")
            option = quiz_option(right=right)
            option += self.parse(quiz_statement(), [statement], number)
            option += self.parse(quiz_feedback(), feedback, number + 1)
            node += option
        self.set_source_info(node)
        self.add_name(node)
        if not node["ids"]:
            node["ids"].append(f"quiz-{self.env.new_serialno('quiz') + 1}")
        return [node]

    def parse(self, parent: nodes.Element, lines: list[str], offset: int) -> nodes.Element:
        """Parse Markdown into the parent; a lone paragraph gives its words without a <p>."""
        source = self.get_source_info()[0]
        self.state.nested_parse(StringList(lines, source), self.content_offset + offset, parent)
        paragraph = parent[0]
        if len(parent) == 1 and isinstance(paragraph, nodes.paragraph):
            parent[:] = []
            parent.extend(paragraph.children)
        return parent


def visit_quiz(self, node: quiz) -> None:
    self.body.append(f'<fieldset class="quiz" id="{escape(node["ids"][0])}">')


def depart_quiz(self, node: quiz) -> None:
    self.body.append(
        '<div class="quiz-end"><button type="button" class="quiz-check">Check</button>'
        '<p class="quiz-status" role="status"></p></div></fieldset>\n'
    )


def visit_question(self, node: quiz_question) -> None:
    self.body.append('<legend><span class="quiz-mark" aria-hidden="true">?</span> ')


def depart_question(self, node: quiz_question) -> None:
    self.body.append(' <span class="quiz-how">Tick every true statement.</span></legend>')


def visit_option(self, node: quiz_option) -> None:
    self.body.append(f'<div class="quiz-option" data-true="{str(node["right"]).lower()}">')


def depart_div(self, node: nodes.Element) -> None:
    self.body.append("</div>\n")


def visit_statement(self, node: quiz_statement) -> None:
    self.body.append('<label><input type="checkbox" autocomplete="off"><span>')


def depart_statement(self, node: quiz_statement) -> None:
    self.body.append("</span></label>")


def visit_feedback(self, node: quiz_feedback) -> None:
    self.body.append('<div class="quiz-feedback" hidden><span class="quiz-verdict"></span> ')


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(quiz, html=(visit_quiz, depart_quiz))
    app.add_node(quiz_question, html=(visit_question, depart_question))
    app.add_node(quiz_option, html=(visit_option, depart_div))
    app.add_node(quiz_statement, html=(visit_statement, depart_statement))
    app.add_node(quiz_feedback, html=(visit_feedback, depart_div))
    app.add_directive("quiz", QuizDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
