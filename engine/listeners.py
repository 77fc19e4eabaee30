"""Passes what happens on to whoever listens, and keeps a broken listener from breaking the rest.

Knows listeners; knows no request.
"""

import logging
from collections.abc import Callable
from typing import Any

from engine.request_listener import RequestListener

logger = logging.getLogger(__name__)


class Listeners:
    """All listeners of one engine.

    Attributes:
        want_tokens: Whether anybody wants to hear of every token.
    """

    def __init__(self) -> None:
        self._listeners: list[RequestListener] = []
        self.want_tokens = False

    def add(self, listener: RequestListener) -> None:
        """Let one more hear."""
        self._listeners.append(listener)
        self._look()

    def remove(self, listener: RequestListener) -> None:
        """Let one hear no more; unknown ones are passed over."""
        self._listeners = [each for each in self._listeners if each is not listener]
        self._look()

    def _look(self) -> None:
        self._on_tokens = self._methods("on_tokens")
        self._on_step = self._methods("on_step")
        self.want_tokens = bool(self._on_tokens)

    def _methods(self, name: str) -> list[tuple[RequestListener, Callable[..., None]]]:
        """The methods of that name that are not the one that does nothing."""
        return [
            (each, getattr(each, name))
            for each in self._listeners
            if getattr(type(each), name, None) is not getattr(RequestListener, name)
        ]

    def __len__(self) -> int:
        return len(self._listeners)

    def tell(self, name: str, *args: Any) -> None:
        """Call one method of all."""
        for listener, method in self._methods(name):
            self._call(listener, method, args)

    def tell_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        """`on_tokens` of all that want to hear it."""
        for listener, method in self._on_tokens:
            self._call(listener, method, (request_id, num_new, now, is_first))

    def _call(
        self, listener: RequestListener, method: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        try:
            method(*args)
        except Exception:
            logger.exception("%s raised and hears no more", type(listener).__name__)
            self.remove(listener)
