"""What the doctor has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from afdcd.utils.files import json_text


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: a word that names the kind of fault, e.g. ``tap`` or ``rare-class``.
        text: what was found and what to do.
        fix: whether it prevents a sound run; otherwise it is a remark.
    """

    kind: str
    text: str
    fix: bool


@dataclass
class Report:
    """Everything found in one dry run.

    Attributes:
        findings: in the order of the checks.
        facts: figures by topic, ready for JSON.
    """

    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def fix(self, kind: str, *texts: str) -> None:
        """Note what prevents a sound run, once even if several checks find it."""
        known = {finding.text for finding in self.findings}
        self.findings += [Finding(kind, text, True) for text in texts if text not in known]

    def fix_problems(self, problems: Iterable[str], kind: str = "config") -> None:
        """Note problems, each with its own kind where it has one (`Problem`)."""
        for problem in problems:
            self.fix(getattr(problem, "kind", kind), problem)

    def note(self, kind: str, *texts: str) -> None:
        """Note a remark."""
        self.findings += [Finding(kind, text, False) for text in texts]

    @property
    def to_fix(self) -> list[Finding]:
        """What prevents a sound run."""
        return [finding for finding in self.findings if finding.fix]

    @property
    def ok(self) -> bool:
        """Whether nothing prevents a sound run."""
        return not self.to_fix

    def json(self) -> str:
        """``{"ok", "fix": [{"kind", "text"}], "notes": [...], "facts"}``; NaN becomes null."""
        content = {
            "ok": self.ok,
            "fix": _entries(self.to_fix),
            "notes": _entries(finding for finding in self.findings if not finding.fix),
            "facts": self.facts,
        }
        return json_text(content)

    def text(self) -> str:
        """The report for a person: facts, remarks, and at the end OK or what to fix."""
        lines = [f"{topic}: {_in_words(value)}" for topic, value in self.facts.items()]
        notes = [finding for finding in self.findings if not finding.fix]
        if notes:
            lines += ["", "Remarks:", *(f"  - [{n.kind}] {n.text}" for n in notes)]
        if self.ok:
            lines += ["", "OK"]
        else:
            lines += ["", f"To fix ({len(self.to_fix)}):"]
            lines += [f"  {n}. [{f.kind}] {f.text}" for n, f in enumerate(self.to_fix, 1)]
        return "\n".join(lines)


def _entries(findings: Iterable[Finding]) -> list[dict[str, str]]:
    return [{"kind": finding.kind, "text": finding.text} for finding in findings]


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return "x".join(_in_words(part) for part in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
