"""The code blocks of the project's documents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("projects/*/README.md"))
)


@dataclass(frozen=True)
class Block:
    """A block of code in a document.

    Attributes:
        document: relative to the repository.
        line: of its first line of code, from 1.
        language: what stands behind the fence; ``indented`` without one.
        text: its code.
    """

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def file(self) -> str | None:
        """The path in a first line ``# file: path``, which the reader is to write the block to."""
        found = re.match(r"# file: (\S+)\n", self.text)
        return found[1] if found else None


def blocks(document: str) -> list[Block]:
    """All blocks of a document, fenced or indented by four spaces after an empty line."""
    found: list[Block] = []
    lines = (ROOT / document).read_text().splitlines()
    number = 0
    while number < len(lines):
        first = number + 1
        if re.match(r"```\{[\w-]+\}", lines[number]):  # a directive of the site
            number = lines.index("```", first)
        elif fence := re.match(r"```(\w*)$", lines[number]):
            number = lines.index("```", first)
            text = "".join(f"{line}\n" for line in lines[first:number])
            found.append(Block(document, first + 1, fence[1], text))
        elif lines[number].startswith("    ") and (number == 0 or not lines[number - 1]):
            while number < len(lines) and lines[number].startswith("    "):
                number += 1
            text = "".join(f"{line[4:]}\n" for line in lines[first - 1 : number])
            found.append(Block(document, first, "indented", text))
        number += 1
    return found


ALL = [block for document in DOCUMENTS for block in blocks(document)]
