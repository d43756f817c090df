"""Flower's templates with ours beside them, one more link in its navigation, and a place for our
style in its head. Flower has no place for either, so both are put into the text of its templates:
where that reads otherwise, the page has no link or no style, and still works."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tornado.template import Loader, Template

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"


class Templates(Loader):
    """Loads both by their names."""

    LINK = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'enrichment' %} active{% end %}"
            href="{{ reverse_url('enrichment') }}"
            {% if active_tab == 'enrichment' %}aria-current="page"{% end %}>Enrichment</a>
        </li>
      """
    HEAD = "{% block enrichment_head %}{% end %}"

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        # Flower names its templates flatly, so nothing is relative to a parent.
        return name

    def _create_template(self, name: str) -> Template:
        ours = TEMPLATES / name
        if ours.exists():
            return Template(ours.read_text(encoding="utf-8"), name=name, loader=self)
        text = (Path(self.root) / name).read_text(encoding="utf-8")
        if name == "navbar.html":
            # The first list is the one of the pages.
            text = text.replace("</ul>", self.LINK + "</ul>", 1)
        elif name == "base.html":
            text = text.replace("</head>", self.HEAD + "</head>", 1)
        return Template(text, name=name, loader=self)


def asset_path(name: str) -> str:
    """The path of one of our files below /enrichment/static/; it changes with the file."""
    return f"{name}?v={_DIGESTS[name]}"


_DIGESTS = {
    path.name: sha256(path.read_bytes()).hexdigest()[:12] for path in sorted(STATIC.iterdir())
}
