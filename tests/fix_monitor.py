"""A target that is sampled by hand: statements run in between, and what was seen of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from playbook.context import Context
from playbook.file_store import FileStore
from playbook.monitor.history import History
from playbook.monitor.sampler import Sampler, Taken
from playbook.target.connect import Target

FLUSH = "SELECT pg_stat_force_next_flush()"


@dataclass
class Watched:
    """A target with a sampler that has begun."""

    target: Target
    context: Context
    sampler: Sampler

    def run(self, *statements: str, times: int = 1) -> None:
        """Runs statements as an application would, one after the other, and has them counted at once."""
        with self.target.connect(application_name="shop") as connection:
            for _ in range(times):
                for statement in statements:
                    connection.execute(statement.encode(), prepare=False)
            if connection.info.server_version >= 150000:
                connection.execute(FLUSH)

    def take(self) -> Taken:
        """A sample; there is one, since the sampler has begun."""
        taken = self.sampler.take()
        assert taken is not None
        return taken

    def calls_of(self, taken: Taken, part: str) -> int:
        """How often statements ran that hold `part` in their text, as far as texts were told with this sample."""
        return sum(taken.took[queryid].calls for queryid, text in taken.texts.items() if part in text)


@pytest.fixture
def watch(context_of: Callable[..., Context]) -> Iterator[Callable[..., Watched]]:
    """Begins to sample a target: `watch(target, "role", metrics_url=…)`."""
    with ExitStack() as opened:

        def watch_(target: Target, user: str = "", extension: bool = True, **options: Any) -> Watched:
            if extension:
                with target.connect() as connection:
                    connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            context = context_of(target, user)
            sampler = opened.enter_context(Sampler(context, **options))
            assert sampler.take() is None, "the first look only begins"
            return Watched(target, context, sampler)

        yield watch_


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A history in a file of its own."""
    file = tmp_path / "history" / "shop.sqlite"
    return History(FileStore(file), file)
