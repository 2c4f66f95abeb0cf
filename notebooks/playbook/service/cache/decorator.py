"""`@cached`: a function whose results are kept, by its arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from playbook.service.cache.cache import Cache

P = ParamSpec("P")
R = TypeVar("R")


def cached(
    cache: Cache, prefix: str, *, tables: Iterable[str], ttl_s: float | None = None, ignore: Iterable[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keeps what a function returns, under `prefix` and its arguments but for those in `ignore` (a session, say).

    See `Cache.get_or_load` for `tables` and the errors. In async code call the function through `asyncio.to_thread`.

    Raises:
        TypeError: the function is async, or has no argument of a name in `ignore`.
    """
    names, left_out = tuple(tables), frozenset(ignore)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__qualname__} is async: cache a plain one and await asyncio.to_thread of it")
        signature = inspect.signature(function)
        if unknown := left_out - set(signature.parameters):
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(sorted(unknown))}")

        @functools.wraps(function)
        def from_cache(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            filters = {name: value for name, value in bound.arguments.items() if name not in left_out}
            return cache.get_or_load(prefix, filters, lambda: function(*args, **kwargs), tables=names, ttl_s=ttl_s)

        return from_cache

    return decorate
