"""What the theme leaves to be mended, and MathJax served from the book's own host."""

import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

NODE_MODULES = Path(__file__).parents[2] / "node_modules"
MATHJAX = {  # from node_modules to _static/mathjax4
    "mathjax/tex-chtml.js": "tex-chtml.js",
    "mathjax/a11y/assistive-mml.js": "a11y/assistive-mml.js",
    "mathjax/input/tex/extensions": "input/tex/extensions",
    "mathjax/LICENSE": "LICENSE",
    "@mathjax/mathjax-newcm-font/chtml.js": "fonts/mathjax-newcm-font/chtml.js",
    "@mathjax/mathjax-newcm-font/chtml": "fonts/mathjax-newcm-font/chtml",
}
MENDS = {  # markup that accessibility checks object to
    ' role="doc-biblioentry"': "",
    '<div role="list" class="citation-list">': '<div class="citation-list">',
    '<summary aria-label="Toggle hidden content">': "<summary>",
}


def find_mathjax(app: Sphinx) -> None:
    if app.builder.format == "html" and not (NODE_MODULES / "mathjax").is_dir():
        raise ExtensionError("MathJax is not installed: run `python book/_ext/npm_ci.py`.")


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy the parts of MathJax that the pages load, where they are not there yet."""
    if exception or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "mathjax4"
    stamp = target / "package.json"
    wanted = (NODE_MODULES / "mathjax/package.json").read_text()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    shutil.rmtree(target, ignore_errors=True)
    for source, copy in MATHJAX.items():
        source, copy = NODE_MODULES / source, target / copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copyfile(source, copy)
    stamp.write_text(wanted)


def stamp_build(app: Sphinx, exception: Exception | None) -> None:
    """Leave a mark whose time says when the pages were last built without a warning."""
    if not exception and not app._warncount and app.builder.format == "html":
        (Path(app.outdir) / ".built").touch()


def without_icon_script(head: str) -> str:
    """Drop Font Awesome's script (1.6 MB), since its webfont draws the icons already."""
    return re.sub(r"<script[^>]*/fontawesome\.js[^>]*></script>", "", head)


def mend_page(app: Sphinx, name: str, template: str, context: dict, doctree: nodes.document):
    context["without_icon_script"] = without_icon_script
    for markup, better in MENDS.items():
        context["body"] = context.get("body", "").replace(markup, better)
    context["script_files"] = [  # Thebe, which runs cells on somebody else's machine
        script
        for script in context["script_files"]
        if "thebe"
        not in f"{getattr(script, 'filename', '')}{getattr(script, 'attributes', '')}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", find_mathjax)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", stamp_build)
    app.connect("html-page-context", mend_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
