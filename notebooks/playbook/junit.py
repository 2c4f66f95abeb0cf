"""Results as JUnit XML, which CI systems read."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from playbook import figures, outcome
from playbook.regressions import Compared
from playbook.results import Comparison, Notebook, Results, Step

_SKIPPED = ("planned", "blocked", "not_applicable", "covered")


def document(results: Results) -> bytes:
    """The whole document in UTF-8: a suite for the notebooks, where there are any, and one for each phase.

    A failed notebook, a failed step and differing rows are failures; steps that were not due or not possible, and
    rows that were not compared, are skipped with the reason.
    """
    root = Element("testsuites", name="playbook")
    if results.notebooks:
        _suite(root, results, "notebooks", [_notebook(each) for each in results.notebooks])
    for phase in _phases(results):
        steps = [each for each in results.steps if _phase(each) == phase]
        cases = [case for step in steps for case in (_step(step), *map(_rows, results.of(step)))]
        cases += [_rows(each) for each in results.elsewhere if each.step.partition("/")[0] == phase]
        _suite(root, results, f"phase {phase}", cases)
    return _finished(root, results.seconds)


def of_compared(compared: Compared) -> bytes:
    """Two runs compared: a suite a topic, a case for each thing; regressions and missed targets are failures."""
    root = Element("testsuites", name="playbook compare")
    alarms = {(each.topic, each.name) for each in (*compared.of("regression"), *compared.missed)}
    for topic in dict.fromkeys(each.topic for each in compared.differences):
        cases = []
        for each in (each for each in compared.differences if each.topic == topic):
            case = Element("testcase", classname=f"compare {topic}", name=each.name, time=_time(0))
            if (each.topic, each.name) in alarms:
                _told(case, "failure", ": ".join(filter(None, (f"{each.old} {figures.ARROW} {each.new}", each.reason))))
            elif each.word == "not compared":
                _told(case, "skipped", each.reason or "not compared")
            cases.append(case)
        _suite(root, compared.new, topic, cases)
    return _finished(root, None)


def _finished(root: Element, seconds: float | None) -> bytes:
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", _time(seconds))
    indent(root)
    return tostring(root, encoding="utf-8", xml_declaration=True)


def _suite(root: Element, results: Results, name: str, cases: list[Element]) -> None:
    suite = SubElement(root, "testsuite", name=name, tests=str(len(cases)), errors="0")
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    suite.set("time", _time(sum(float(case.get("time", "0")) for case in cases)))
    if results.started_at:
        suite.set("timestamp", results.started_at)
    suite.extend(cases)


def _notebook(notebook: Notebook) -> Element:
    case = Element("testcase", classname="notebooks", name=notebook.name, time=_time(notebook.seconds))
    if notebook.failed:
        _told(case, "failure", notebook.error or "the notebook failed")
    return case


def _step(step: Step) -> Element:
    case = Element("testcase", classname=f"phase {_phase(step)}", name=step.id, time=_time(step.seconds))
    reason = f"{outcome.status(step.status)}: {step.reason}" if step.reason else outcome.status(step.status)
    if step.status == "failed":
        _told(case, "failure", reason)
    elif step.status in _SKIPPED:
        _told(case, "skipped", reason)
    return case


def _rows(comparison: Comparison) -> Element:
    phase = comparison.step.partition("/")[0]
    case = Element("testcase", classname=f"phase {phase}", name=f"{comparison.step}: same rows: {comparison.label}")
    if comparison.same_rows is False:
        _told(case, "failure", comparison.same_rows_reason or "before and after return different rows")
    elif comparison.same_rows is None:
        _told(case, "skipped", comparison.same_rows_reason or "not compared")
    return case


def _told(case: Element, kind: str, message: str) -> None:
    SubElement(case, kind, message=message).text = message if kind == "failure" else None


def _phase(step: Step) -> str:
    return step.phase or step.id.partition("/")[0]


def _phases(results: Results) -> Iterable[str]:
    named = [_phase(step) for step in results.steps] + [each.step.partition("/")[0] for each in results.elsewhere]
    return dict.fromkeys(named)


def _time(seconds: float | None) -> str:
    return f"{seconds or 0:.3f}"
