"""Hashes of what is installed: writes them behind the pins of constraints.txt, and lists what a set-up needs with them.

    .venv/bin/python tools/lock.py             after a version in constraints.txt was changed: ask the index for hashes
    python tools/lock.py requirements EXTRA... the requirements of the project with these extras, one a line
    python tools/lock.py pins                  constraints.txt without hashes
    python tools/lock.py hashed REPORT         what a report of pip says it would install, for --require-hashes

All but the first need the standard library only: tools/setup_env.sh calls them before anything is installed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from plugins import extras as table  # noqa: E402

CONSTRAINTS = ROOT / "constraints.txt"

_PIN = re.compile(r"^([\w.-]+)==([\w.]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
# A wheel's name ends in Python, ABI and platform. musl has no LoadGen.
_WHEEL = re.compile(r"-([\w.]+)-([\w.]+)-([\w.]+)\.whl$")
_PYTHONS = re.compile(r"cp31[1-3]|py3|py2\.py3")
_STABLE = re.compile(r"cp3\d*")
_PLATFORMS = re.compile(r"any|(?:.*\.)?(?:manylinux\w+|linux)_(?:x86_64|aarch64)(?:\..*)?")


_HEAD = """\
# Exact versions of everything that run_local.sh and run_tests.sh install, with the hashes of the wheels for Python 3.11
# to 3.13 on Linux, x86_64 and aarch64, and of the source where there is none. tools/lock.py writes the hashes.
"""


def read(path: Path = CONSTRAINTS) -> dict[str, tuple[str, list[str]]]:
    """Pin (``name==version``) and hashes by normalised name, in the file's order."""
    found: dict[str, tuple[str, list[str]]] = {}
    hashes: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if pin := _PIN.match(line):
            hashes = []
            found[normalised(pin[1])] = (pin[0], hashes)
        hashes += _HASH.findall(line)
    return found


def normalised(name: str) -> str:
    """A project's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fits(file: str) -> bool:
    """Whether a file is a wheel that a supported Python on Linux can install."""
    tags = _WHEEL.search(file)
    if tags is None or not _PLATFORMS.fullmatch(tags[3]):
        return False
    return bool(_PYTHONS.fullmatch(tags[1]) and not tags[2].endswith("t")) or (
        tags[2] == "abi3" and bool(_STABLE.match(tags[1]))
    )


def requirements(extras: Iterable[str]) -> list[str]:
    """What the project asks for with these extras, and setuptools, which installs the project itself."""
    wanted = dict.fromkeys(each for extra in ("", *extras) for each in table.requirements(extra))
    return [*wanted, "setuptools"]


def hashed(report: Mapping[str, Any], pins: Mapping[str, tuple[str, list[str]]]) -> list[str]:
    """One line for each project of a pip report. Raises ``SystemExit`` where one has no pin, or no hash, here."""
    lines = []
    for each in report.get("install", []):
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        pin, hashes = pins.get(normalised(name), ("", []))
        if pin.partition("==")[2] != version or not hashes:
            raise SystemExit(f"ERROR: {name}=={version} is not in constraints.txt with its hashes: run tools/lock.py")
        lines.append(" ".join([pin, *(f"--hash=sha256:{digest}" for digest in hashes)]))
    return lines


def locked(pins: Mapping[str, tuple[str, list[str]]]) -> str:
    """The text of constraints.txt with the hashes that the index has now."""
    from pip._internal.models.index import PyPI
    from pip._internal.network.session import PipSession

    session = PipSession()
    text = _HEAD
    for name, (pin, _) in pins.items():
        answer = session.get(f"{PyPI.simple_url}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        answer.raise_for_status()
        start = f"{name.replace('-', '_')}-{pin.partition('==')[2]}"
        listed = [each for each in answer.json()["files"] if _is_of(each["filename"], start)]
        files = [each for each in listed if fits(each["filename"])]
        if all("x86_64" in each["filename"] for each in files):  # on the other it is built
            files += [each for each in listed if each["filename"].endswith(".tar.gz")]
        if not files:
            raise SystemExit(f"ERROR: {pin} has no wheel that fits")
        digests = sorted({each["hashes"]["sha256"] for each in files})
        text += " \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in digests)]) + "\n"
    return text


def _is_of(file: str, start: str) -> bool:
    name, _, rest = file.partition("-")
    return f"{normalised(name).replace('-', '_')}-{rest}".startswith((f"{start}-", f"{start}.tar"))


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    match arguments:
        case []:
            CONSTRAINTS.write_text(locked(read()), encoding="utf-8")
        case ["requirements", *extras]:
            print("\n".join(requirements(extras)))
        case ["pins"]:
            print("\n".join(pin for pin, _ in read().values()))
        case ["hashed", report]:
            sys.stdout.writelines(f"{line}\n" for line in hashed(json.loads(Path(report).read_bytes()), read()))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
