"""Waiting for a condition, with a bound."""

from collections.abc import Awaitable, Callable

Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

BOUND_SECONDS = 60
"""How long anything is waited for: a loaded machine is no failure, and what never comes is noticed soon enough."""
