"""`@cached`: a function whose results are kept, by its arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from playbook.service.cache.cache import Cache

P = ParamSpec("P")
R = TypeVar("R")


def cached(
    cache: Cache, prefix: str, *, tables: Iterable[str], ttl_s: float | None = None, ignore: Iterable[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keeps what a function returns, under `prefix` and its arguments but for those in `ignore` (a session, say).

    See `Cache.get_or_load` for `tables` and the errors. An async function stays async, and its event loop never waits.

    Raises:
        TypeError: the function is a generator, or has no argument of a name in `ignore`.
    """
    names, left_out = tuple(tables), frozenset(ignore)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator: what it yields can be had only once")
        signature = inspect.signature(function)
        if unknown := left_out - set(signature.parameters):
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(sorted(unknown))}")

        def filters(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return {name: value for name, value in bound.arguments.items() if name not in left_out}

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                asked = filters(*args, **kwargs)
                return await cache.aget_or_load(
                    prefix, asked, lambda: function(*args, **kwargs), tables=names, ttl_s=ttl_s
                )

            return awaited  # type: ignore[return-value]

        @functools.wraps(function)
        def from_cache(*args: P.args, **kwargs: P.kwargs) -> R:
            asked = filters(*args, **kwargs)
            return cache.get_or_load(prefix, asked, lambda: function(*args, **kwargs), tables=names, ttl_s=ttl_s)

        return from_cache

    return decorate
