"""What ``sut study brokers`` has found, as the section of docs/brokers.md: the same tables and sentences as its page.

python benchmarks/brokers.py study.json [--about "..."] [--write-docs]

``--about`` is what else was so when it was measured, a sentence: what the brokers were, who else was at work.
Exit code: 0 done; 1 wrong usage, or no such study.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import Parser, publish, table
from benchmarks.studies import read_content
from sut.results.machine import named
from sut.studies.brokers.report import HEADINGS, lines_of
from sut.studies.pages import read_study

PAGE = Path(__file__).resolve().parent.parent / "docs" / "brokers.md"


def section(content: Mapping[str, Any], sentences: Sequence[str], about: str) -> Iterator[str]:
    """Lines of Markdown: where, the sentences, the claims, the tables with their bars."""
    system = content["system"]
    asked = f"lanes {content['lanes'] or 'auto'}, workers {content['identify_workers']}, crops in batches of up to "
    where = f"Measured on {named(system)}, {system['utc'][:10]}, with {asked}{content['identify_batch']}"
    yield from (f"{where}; rounds asked for: {content['rounds']}. {about}".strip(), "")
    yield from (f"- {words}" for words in sentences if not words.startswith("They say: "))
    yield ""
    columns = ("they say", "theirs", "here", "our figure, or why there is none", "command")
    names = ("says", "theirs", "verdict")
    claims = [
        [*(row[name] for name in names), row["ours"] or row["reason"], f"`{row['command']}`"]
        for row in content["claims"]
    ]
    yield from table(columns, claims)
    lines = lines_of(content["rows"])
    for caption, headings in HEADINGS.items():
        heads = [heading.lstrip("<>").replace("\n", " ") for heading in headings]
        yield from ("", f"{caption}:", "", *table(heads, lines[caption]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the section, and write it where asked to."""
    parser = Parser(__doc__)
    parser.add_argument("study", type=Path, metavar="study.json")
    parser.add_argument("--about", default="", help="what else was so, a sentence")
    parser.add_argument("--write-docs", action="store_true", help="write docs/brokers.md")
    given = parser.parse_args(arguments)
    try:
        content, study = read_content(given.study), read_study(given.study, "s0")
        body = [*section(content, study.sentences, given.about)]
    except (ValueError, KeyError, TypeError) as error:
        parser.error(f"{given.study}: no study of brokers: {error}")
    publish(body, "brokers" if given.write_docs else None, "Measured", PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
