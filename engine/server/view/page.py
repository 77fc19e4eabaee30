"""The live view's page in one piece: markup, style and script, and what the browser may do with it.

Knows the files in `static`; asks for nothing from outside, and the page's own policy forbids it.
"""

import base64
import functools
import gzip
import hashlib
import html
from pathlib import Path

STATIC = Path(__file__).resolve().parent / "static"
SCRIPTS = (
    *("state", "palette", "charts", "words", "batch", "blocks", "requests"),
    *("source", "asking", "main"),
)
LIVE_TITLE = "Live view"


def live_page() -> str:
    """The page that follows a server."""
    return _page(LIVE_TITLE, "'self'", "")


def recorded_page(title: str, recorded: bytes) -> str:
    """A page that holds a recorded run.

    Args:
        title: Of the page.
        recorded: JSON: an object with `hello` and `ticks`, as the server's stream would tell them.
    """
    packed = base64.b64encode(gzip.compress(recorded, 6, mtime=0)).decode()
    data = f'<script type="text/plain" id="recorded">{packed}</script>'
    return _page(title, "'none'", data)


def policy(connect: str = "'self'") -> str:
    """The content security policy: what is in the page itself, and `connect` to fetch data from."""
    _, style, script = _parts()
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def _page(title: str, connect: str, data: str) -> str:
    page, style, script = _parts()
    values = {
        "policy": html.escape(policy(connect)),
        "title": html.escape(title),
        "style": style,
        "data": data,
        "script": script,
    }
    parts = page.split("{{")
    ends = [part.partition("}}") for part in parts[1:]]
    return parts[0] + "".join(values[name] + rest for name, _, rest in ends)


@functools.cache
def _parts() -> tuple[str, str, str]:
    def read(name: str) -> str:
        return (STATIC / name).read_text(encoding="utf-8")

    script = '"use strict";\n{\n' + "\n".join(read(f"{name}.js") for name in SCRIPTS) + "}\n"
    return read("page.html"), read("page.css"), script


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
