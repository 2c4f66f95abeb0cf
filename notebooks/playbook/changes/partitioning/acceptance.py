"""What cannot survive partitioning, each with the words in which a plan accepts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from playbook.changes.change import Finding


@dataclass(frozen=True)
class Loss:
    """Something that is lost; `words` at the step's `accept:` say that the plan knows and wants it so."""

    words: str
    detail: str


def unaccepted(losses: Sequence[Loss], accept: Sequence[str]) -> list[Finding]:
    """A finding for each loss: blocked, or a warning where the plan accepts it in so many words."""
    accepted = {_plain(each) for each in accept}
    return [
        Finding("warn", f"{loss.detail}, as the plan accepts")
        if _plain(loss.words) in accepted
        else Finding("blocked", loss.detail, f"where that is right, say so at the step: accept: [{_yaml(loss.words)}]")
        for loss in losses
    ]


def unknown(losses: Sequence[Loss], accept: Sequence[str]) -> list[str]:
    """What the plan accepts though it is not lost here; said, since it may be a misspelling."""
    known = {_plain(loss.words) for loss in losses}
    return [each for each in accept if _plain(each) not in known]


def _plain(words: str) -> str:
    return " ".join(words.split()).lower()


def _yaml(words: str) -> str:
    return f'"{words}"' if any(mark in words for mark in ',:"#') else words
