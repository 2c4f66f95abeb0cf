"""The errors of the playbook: each message names the cause and the remedy.

PlaybookError                exit code 2 unless said otherwise
 ├── UsageError              a wrong option, parameter or folder
 │    └── PlanError          the plan file or its workload is wrong; names file, line and field
 ├── TargetError             the target cannot be worked on
 │    ├── Unreachable        no connection
 │    ├── Unsupported        a version or a pooler that this work cannot be done through
 │    ├── Busy               another run holds the target
 │    ├── Moved              it is no longer as it was when the saved plan was reviewed
 │    └── EmbeddedError      the embedded server or its sample could not be made
 ├── NamesError              a name of the plan could not be placed on the target
 │    ├── NotFound           no candidate (the step is not applicable)
 │    └── Ambiguous          two candidates
 ├── NotAnalysed             a statement that must not be measured (volatile, several statements, ...)
 ├── StepError               exit code 1: a step failed
 │    ├── LockNotGranted     a bounded lock was not to be had in time
 │    ├── Interrupted        stopped half-way; the journal tells how to go on
 │    └── Drifted            an object was changed by others since it was applied
 ├── Overloaded              a service has no room for one more request now
 └── RunError                exit code 1: a notebook failed, or rows differ
"""

from __future__ import annotations

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_GATE = 0, 1, 2, 3
"""What a command exits with: done; a step or a notebook failed, or rows differ; wrong usage, or the target cannot be
worked on; the gate."""


class PlaybookError(Exception):
    """Base of all errors that a user can mend; `str()` is one line for the terminal."""

    exit_code = 2


class UsageError(PlaybookError):
    """A wrong option, parameter or folder."""


class PlanError(UsageError):
    """The plan file or its workload is wrong; the message starts with `file:line: field:`."""


class TargetError(PlaybookError):
    """The target cannot be worked on."""


class Unreachable(TargetError):
    """No connection to the target."""


class Unsupported(TargetError):
    """A server version, or a pooler in between, that this work cannot be done through."""


class Busy(TargetError):
    """Another run holds the target; the message says who."""


class Moved(TargetError):
    """The target has changed since the saved plan was reviewed; the message names what moved."""


class EmbeddedError(TargetError):
    """The embedded server or its sample database could not be made."""


class NamesError(PlaybookError):
    """A name of the plan could not be placed on the target."""


class NotFound(NamesError):
    """Nothing on the target bears that name; near names are suggested."""


class Ambiguous(NamesError):
    """Two relations or columns bear that name; the message lists them."""


class NotAnalysed(PlaybookError):
    """A statement that must not be executed for measuring; the message says why."""


class StepError(PlaybookError):
    """A step failed; the target is as the journal says."""

    exit_code = 1


class LockNotGranted(StepError):
    """A bounded lock was not to be had within the limit; nothing was changed."""


class Interrupted(StepError):
    """The run was stopped half-way; the message says how to go on."""


class Drifted(StepError):
    """An object was changed by others since the playbook made it, so undo leaves it alone."""


class Overloaded(PlaybookError):
    """There is no room for one more request now; try again."""


class RunError(PlaybookError):
    """A notebook failed or rows differ."""

    exit_code = 1


def one_line(error: object) -> str:
    """The text of an error without line breaks, for messages; the error's name where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
