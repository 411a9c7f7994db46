"""Hashes of what is installed: writes them behind the pins of constraints.txt, and lists what a set-up needs with them.

    .venv/bin/python tools/lock.py             after a version in constraints.txt was changed: ask the index for hashes
    python tools/lock.py extras EXTRA...       those of them that are installed: of NAME and NAME-cuNN only one is
    python tools/lock.py requirements EXTRA... the requirements of the project with these extras, one a line
    python tools/lock.py pins EXTRA...         the versions of constraints.txt for them
    python tools/lock.py hashed REPORT EXTRA... what a report of pip says it would install, for --require-hashes
    python tools/lock.py rivals EXTRA...       what is installed and has to go first
    python tools/lock.py build EXTRA...        a line where pip would bring PyTorch's CUDA build for a run on the CPU

All but the first need the standard library and pip only: tools/setup_env.sh calls them before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

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


_CUDA = re.compile(r"-cu\d+$")

BARE = {"onnx2torch": (), "pycuda": ("pytools", "platformdirs", "mako"), "tensorrt-stubs": (), "zeus": ("httpx",)}
"""What is installed without its requirements, and those of them that are needed beside the table's.

onnx2torch requires torchvision, which the backend does without: PyPI's does not import beside a PyTorch for CPUs. Of
PyCUDA there is but the source, which pip would have to run to be told of its requirements, its hash unchecked. The
stubs of TensorRT require its bindings, which no type needs. Of zeus a test reads one counter, without pandas.
"""
_APART = {"nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"}
"""Packages of two builds that lie in folders of their own."""
TORCH = "torch"
"""What is another file on every index, by a label behind its version: of 2.13.0+cpu PyPI knows no hash."""
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of CPU builds."""
CUDA_BUILD_MB = 2740
"""PyTorch 2.13.0 of PyPI with the packages for CUDA 13 that it requires."""

_HEAD = """\
# Exact versions of everything that run_local.sh and run_tests.sh install, with the hashes of the wheels for Python 3.11
# to 3.13 on Linux, x86_64 and aarch64, and of the source where there is none. tools/lock.py writes the hashes.
# Below [EXTRA] are those that take the place of the ones above it where this extra is installed.
#
# The hashes are those of PyPI. PyTorch alone may come from an index of its own, as a build whose version has a label
# (2.13.0+cpu). That is pinned by its version, and the file has to be the one that this index has a hash of.
"""

Pins = dict[str, tuple[str, list[str]]]
"""Pin (``name==version``) and hashes by normalised name, in the order of the file."""


def sections(path: Path = CONSTRAINTS) -> dict[str, Pins]:
    """What the file has for everybody, under an empty name, and what it has for some extras, under theirs."""
    found: dict[str, Pins] = {"": {}}
    section, hashes = found[""], list[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif pin := _PIN.match(line):
            hashes = []
            section[normalised(pin[1])] = (pin[0], hashes)
        hashes += _HASH.findall(line)
    return found


def read(extras: Iterable[str] = ()) -> Pins:
    """What holds where these extras are installed."""
    found = sections()
    return {name: pin for extra in ("", *extras) for name, pin in found.get(extra, {}).items()}


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


def settled(extras: Iterable[str]) -> list[str]:
    """What is installed of these: of NAME and its builds NAME-cuNN one, the last of those with a CUDA, else NAME."""
    chosen: dict[str, str] = {}
    for extra in extras:
        name = _stem(extra)
        if name != extra or name not in chosen:
            chosen[name] = extra
    return sorted(chosen.values())


def own(extra: str) -> set[str]:
    """Those packages of an extra that not all of its builds have: they may not be beside another build's."""
    return _names(extra) - set.intersection(*map(_names, _builds(extra))) - _APART


def rivals(extra: str) -> set[str]:
    """The packages of its other builds: they write the same files as its own."""
    return {name for build in _builds(extra) for name in own(build)} - _names(extra)


def to_remove(extras: Iterable[str], there: Set[str]) -> Set[str]:
    """What is ``there`` and makes way for a build for a CUDA. Where none is asked for, any build does."""
    return {name for extra in settled(extras) if _stem(extra) != extra for name in rivals(extra)} & there


def requirements(extras: Iterable[str], there: Set[str] = frozenset()) -> list[str]:
    """What the project asks for with these extras, and setuptools, which installs the project itself.

    ``there`` are the distributions that are installed. Raises ``SystemExit`` where two builds of one thing are.
    """
    asked = settled(extras)
    unwanted: set[str] = set()
    for extra in asked:
        mine, others = own(extra), rivals(extra)
        if mine & there and others & there:
            found = sorted((mine | others) & there)
            raise SystemExit(
                f"ERROR: {' and '.join(found)} are installed together, and write the same files:"
                f" {sys.executable} -m pip uninstall -y {' '.join(found)}, then start again"
            )
        unwanted |= others if _stem(extra) != extra else mine if others & there else set()
    wanted = [package for extra in ("", *asked) for package in table.packages(extra)]
    wanted = [package for package in wanted if normalised(package.name) not in unwanted]
    bare = [package.requirement for package in wanted if package.name not in BARE]
    needed = [name for package in wanted for name in BARE.get(package.name, ())]
    return [*dict.fromkeys([*bare, *needed]), "setuptools"]


def hashed(report: Mapping[str, Any], pins: Pins, extras: Sequence[str] = ()) -> list[str]:
    """One line for each project of a pip report, and for what is installed bare.

    Raises ``SystemExit`` where one has no pin, or no hash, here, and where PyTorch for CPUs was found for a GPU.
    """
    lines = []
    for each in report.get("install", []):
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        pin, hashes = pins.get(normalised(name), ("", []))
        public, _, label = version.partition("+")
        if name == TORCH and label and pin == f"{name}=={public}":
            if label == "cpu" and any(_stem(extra) != extra and name in _names(extra) for extra in extras):
                raise SystemExit(
                    f"ERROR: pip finds {name} {version}, a build for CPUs, where one for a GPU was asked for:"
                    " leave the index of CPU builds out (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, pip config list)"
                )
            pin, hashes = f"{name}=={version}", _hash_of_index(each["download_info"])
        if pin.partition("==")[2] != version or not hashes:
            raise SystemExit(f"ERROR: {name}=={version} is not in constraints.txt with its hashes: run tools/lock.py")
        lines.append(_hashed(pin, hashes))
    bare = {name for extra in settled(extras) for name in _names(extra)} & BARE.keys()
    return [*lines, *(_hashed(*pins[name]) for name in sorted(bare))]


def _hash_of_index(download: Mapping[str, Any]) -> list[str]:
    """The hash that an index has of a file; of a file on this machine its own."""
    if found := download.get("archive_info", {}).get("hashes", {}).get("sha256"):
        return [found]
    url = urlsplit(download["url"])
    if url.scheme != "file":
        return []
    with Path(url2pathname(url.path)).open("rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest()]


def _hashed(pin: str, hashes: Iterable[str]) -> str:
    return " ".join([pin, *(f"--hash=sha256:{digest}" for digest in hashes)])


def _names(extra: str) -> set[str]:
    return {normalised(package.name) for package in table.packages(extra)}


def _stem(extra: str) -> str:
    return _CUDA.sub("", extra)


def _builds(extra: str) -> set[str]:
    return {extra, *(each for entry in table.TABLE for each in entry.extras if _stem(each) == _stem(extra))}


def cuda_build(extras: Sequence[str]) -> str:
    """What is to be said where pip, as it is set up here, finds PyTorch's CUDA build for a run on the CPU."""
    if not any(TORCH in _names(extra) and _stem(extra) == extra for extra in settled(extras)) or TORCH in installed():
        return ""
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet

    version = read()[TORCH][0].partition("==")[2]
    command: Any = create_command("download")
    with command.main_context():
        options, _ = command.parse_args([])
        finder = command._build_package_finder(options, command.get_default_session(options))
        found = finder.find_best_candidate(TORCH, SpecifierSet(f"=={version}")).best_candidate
    if found is None or found.version.local == "cpu":
        return ""
    return (
        f"pip finds PyTorch {found.version}, the CUDA build, for a run on the CPU: some {CUDA_BUILD_MB} MB with its"
        " packages, where the CPU build has 200. To have that, stop this (Ctrl-C) and start again with"
        f" PIP_EXTRA_INDEX_URL={CPU_BUILDS}"
    )


def installed() -> set[str]:
    """The normalised names of the distributions that this Python has."""
    return {normalised(each.name) for each in distributions() if each.name}


def locked(found: Mapping[str, Pins]) -> str:
    """The text of constraints.txt with the hashes that the index has now."""
    titles = {extra: f"\n[{extra}]\n" if extra else _HEAD for extra in found}
    return "".join(titles[extra] + _locked(pins) for extra, pins in found.items())


def _locked(pins: Pins) -> str:
    from pip._internal.models.index import PyPI
    from pip._internal.network.session import PipSession

    session = PipSession()
    text = ""
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
            CONSTRAINTS.write_text(locked(sections()), encoding="utf-8")
        case ["extras", *extras]:
            print(" ".join(settled(extras)))
        case ["requirements", *extras]:
            print("\n".join(requirements(extras, installed())))
        case ["pins", *extras]:
            print("\n".join(pin for pin, _ in read(extras).values()))
        case ["hashed", report, *extras]:
            found = hashed(json.loads(Path(report).read_bytes()), read(extras), extras)
            sys.stdout.writelines(f"{line}\n" for line in found)
        case ["rivals", *extras]:
            print(" ".join(sorted(to_remove(extras, installed()))))
        case ["build", *extras]:
            print(cuda_build(extras))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
