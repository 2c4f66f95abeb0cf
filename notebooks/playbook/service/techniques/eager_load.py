"""Switch `eager_load`: what belongs to rows is loaded with them, in `playbook.service.reads`."""

from __future__ import annotations

from playbook.service.techniques.technique import Technique


class EagerLoad(Technique):
    """Both ways to read stand beside each other in `reads`."""

    name = "eager_load"
