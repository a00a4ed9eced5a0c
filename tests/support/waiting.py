"""Waiting for a condition, with a bound."""

from collections.abc import Awaitable, Callable

Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
