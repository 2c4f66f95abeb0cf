"""Works a plan and kills itself with SIGKILL at one point of one statement.

`killed_apply.py PLAN STEP POINT [POSITION [DIRECTION [TOUCH]]]`: POINT is before_intent, after_intent, during,
before_done, after_done or never; POSITION counts the step's statements from 0; DIRECTION is apply, undo or finish (whose
statements are counted on from those of apply). TOUCH is what another session runs in an open transaction, so that the
statement is under way when the kill comes. Target and names are those of PLAYBOOK_TARGET and PLAYBOOK_MAP. The kill is
real; only its moment is arranged, by wrapping the journal's record of that step.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psycopg

from playbook import finishing, undoing
from playbook.context import open_context
from playbook.journal import StatementRecord
from playbook.phase import Playbook
from playbook.settings import Settings


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrange(step: str, point: str, position: int, direction: str, touch: str) -> None:
    blockers: list[psycopg.Connection] = []
    intent, done = StatementRecord.intent, StatementRecord.done

    def killing_intent(self: StatementRecord, pid: int, start: str) -> None:
        here = (self.step, self.direction, self.position) == (step, direction, position)
        if here and point == "before_intent":
            die()
        intent(self, pid, start)
        if here and point == "after_intent":
            die()
        if here and point == "during" and not blockers:
            if touch:
                blockers.append(psycopg.connect(os.environ["SHOP_URL"]))
                blockers[0].execute(touch.encode())
            threading.Thread(target=lambda: (time.sleep(0.15), die())).start()

    def killing_done(self: StatementRecord, connection: object) -> None:
        here = (self.step, self.direction, self.position) == (step, direction, position)
        if here and point == "before_done":
            die()
        done(self, connection)  # type: ignore[arg-type]
        if here and point == "after_done":
            die()

    StatementRecord.intent, StatementRecord.done = killing_intent, killing_done  # type: ignore[method-assign]


def main() -> None:
    plan, step, point, *more = sys.argv[1:]
    position, direction, touch = (*more, *("0", "apply", "")[len(more) :])
    arrange(step, point, int(position), "undo" if direction == "undo" else "apply", touch)
    target = os.environ.get("PLAYBOOK_TARGET", "env:SHOP_URL")
    context = open_context(Settings.from_environ(target=target, plan=Path(plan), apply=True))
    if direction == "undo":
        print(undoing.undo(context))
        return
    if direction == "finish":
        print(finishing.finish(context, (step,), apply=True))
        return
    applied = Playbook(context).phase(step.partition("/")[0]).apply()
    print([(name, state.status) for name, state, _ in applied.steps])


if __name__ == "__main__":
    main()
