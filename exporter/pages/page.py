"""Renders a template to one HTML file that carries all it needs, and in which what a model says is text.

A page is shown by MLflow in a sandboxed frame, from a blob: it has no neighbours to link to, and no origin. Its
content-security policy allows its own style sheet and its own script, by their hashes, and nothing else; so even markup
that got past the escaping would neither run nor load anything.
"""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from exporter.pages.formats import FILTERS

__all__ = ["TEMPLATES", "compile_pages", "render_page", "show_unseen"]

TEMPLATES = Path(__file__).with_name("templates")

# Control characters, the overrides and isolates of text direction, and halves of surrogate pairs, which UTF-8 has not.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def render_page(template: str, folder: Path = TEMPLATES, script: str = "", **values: object) -> str:
    """Render a template that extends `base.html.j2`.

    Args:
        template: Its name, in `folder`.
        folder: Where it lies; what it extends and includes is also looked for among our own.
        script: The name of a script there, to be inlined; empty for none.
        **values: What the template names. Strings are text, whatever is in them.
    """
    environment = _make_environment(folder)
    style = _read_source(environment, "style.css")
    code = _read_source(environment, script) if script else Markup()
    return environment.get_template(template).render(
        style=style, script=code, policy=_make_policy(style, code), **values
    )


def compile_pages() -> None:
    """Compile our templates, which takes thirty times as long as to render one; a fork finds them compiled."""
    environment = _make_environment(TEMPLATES)
    for name in environment.list_templates(extensions=["j2"]):
        environment.get_template(name)


@cache
def _make_environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        finalize=show_unseen,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _read_source(environment: Environment, name: str) -> Markup:
    """A file of our own, which goes into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])  # noqa: S704  (no model has a word in it)


def _make_policy(style: str, script: str) -> str:
    sources = [f"default-src 'none'; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"]
    if script:
        sources.append(f"script-src {_hash(script)}")
    return "; ".join(sources)


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def show_unseen(value: object) -> object:
    """Write out what has no picture, or would turn around the text after it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    return value
