"""The live view of a server: one page that shows what the scheduler does, step by step.

An extension of the app (see engine.server.app.Extension): `install`, and `open_paths`.
"""

from engine.server.view.routes import install

open_paths = frozenset({"/view", "/view/"})
"""The page itself tells nothing of any request; what it shows comes from `/view/events`."""

__all__ = ["install", "open_paths"]
