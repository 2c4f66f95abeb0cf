"""kill -9 at every statement that a step's `preview` shows, at every moment of it: resumed, and taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fix_shop import Shop

from playbook import undoing
from playbook.target.connect import Target

POINTS = ("before_intent", "after_intent", "before_done", "after_done")


def killed_at_every_statement(
    shop: Shop,
    snapshot: Callable[[Target], str],
    numbers: Mapping[str, int],
    resume: Callable[[], None],
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """The steps of phase 1, each with the `numbers` of statements that it is known to have: not one may be missed.

    After each kill `meanwhile` happens, and half of the times `resume` applies the plan and looks at what came of it.
    """
    shown = {step: len(statements) for step, statements, _ in shop.playbook().phase("1").preview().steps}
    assert shown == dict(numbers)
    as_found, covered = snapshot(shop.target), 0
    moments = [(step, place, point) for step, number in numbers.items() for place in range(number) for point in POINTS]
    for step, position, point in moments:
        for resumed in (True, False):
            where = f"{step}: {point} statement {position}, {'resumed' if resumed else 'not resumed'}"
            assert shop.killed(step, point, position) == -9, where
            meanwhile()
            if resumed:
                resume()
            assert {one.error for one in undoing.undo(shop.context())} <= {""}, where
            assert snapshot(shop.target) == as_found, where
            covered += 1
    print(f"killed at {covered} points")
    assert covered == 2 * len(POINTS) * sum(numbers.values())
