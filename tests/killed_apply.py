"""Applies a plan and kills itself with SIGKILL at one point of one statement: `killed_apply.py PLAN STEP POINT [POSITION]`.

POINT is before_intent, after_intent, during, before_done, after_done or never; POSITION counts the step's statements
from 0. Target and names are those of PLAYBOOK_TARGET and PLAYBOOK_MAP. The kill is real; only its moment is arranged, by
wrapping the journal's record of that step.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from playbook.context import open_context
from playbook.journal import StatementRecord
from playbook.phase import Playbook
from playbook.settings import Settings


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrange(step: str, point: str, position: int) -> None:
    intent, done = StatementRecord.intent, StatementRecord.done

    def killing_intent(self: StatementRecord, pid: int, start: str) -> None:
        here = (self.step, self.direction, self.position) == (step, "apply", position)
        if here and point == "before_intent":
            die()
        intent(self, pid, start)
        if here and point == "after_intent":
            die()
        if here and point == "during":
            threading.Thread(target=lambda: (time.sleep(0.15), die())).start()

    def killing_done(self: StatementRecord, connection: object) -> None:
        here = (self.step, self.direction, self.position) == (step, "apply", position)
        if here and point == "before_done":
            die()
        done(self, connection)  # type: ignore[arg-type]
        if here and point == "after_done":
            die()

    StatementRecord.intent, StatementRecord.done = killing_intent, killing_done  # type: ignore[method-assign]


def main() -> None:
    plan, step, point, position = (*sys.argv[1:], "0")[:4]
    arrange(step, point, int(position))
    target = os.environ.get("PLAYBOOK_TARGET", "env:SHOP_URL")
    context = open_context(Settings.from_environ(target=target, plan=Path(plan), apply=True))
    applied = Playbook(context).phase(step.partition("/")[0]).apply()
    print([(name, state.status) for name, state, _ in applied.steps])


if __name__ == "__main__":
    main()
