"""The N+1 detector as a pytest fixture: `pytest_plugins = ["playbook.service.pytest_plugin"]` in a conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from playbook.service.n_plus_one import Found, detect


@pytest.fixture
def assert_no_n_plus_one() -> Callable[[], AbstractContextManager[Found]]:
    """A block that fails the test when five statements or more were sent row by row, and warns of two to four.

    with assert_no_n_plus_one():
        client.get("/orders")
    """

    @contextmanager
    def block() -> Iterator[Found]:
        with detect() as found:
            yield found
        found.assert_none()

    return block
