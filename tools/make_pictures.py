"""Make JPEGs of the sizes that inference benchmarks are measured with, as mosaics of the demo photos.

python tools/make_pictures.py OUT [--count 12] [--size small|medium|large|mix]

The sizes are those of ``sut/datasets/mosaics.py``; the same command makes the same files. OUT becomes a data set in the
ImageNet layout: the pictures and ``val_map.txt``. The label of pictures that show several photos is 0 and means
nothing: they are for speed, not for accuracy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sut.datasets.mosaics import SIZES, pictures


def main() -> int:
    """Write the pictures and the list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the pictures; made if it is not there")
    parser.add_argument("--count", type=int, default=12, help="number of pictures (12)")
    parser.add_argument("--size", choices=[*SIZES, "mix"], default="mix", help="which sizes (mix)")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error(f"--count is {arguments.count}, expected 1 or more")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        if any(arguments.out.iterdir()):
            parser.error(f"{arguments.out} is not empty; name a new folder")
        made = pictures(arguments.size, arguments.count)
        for name, data, _ in made:
            (arguments.out / name).write_bytes(data)
        lines = "".join(f"{name} {label}\n" for name, _, label in made)
        (arguments.out / "val_map.txt").write_text(lines, encoding="utf-8")
    except OSError as error:
        sys.exit(f"error: cannot write {arguments.out}: {error.strerror}; make room or name another folder")
    except ValueError as error:
        sys.exit(f"error: {error}")
    total = sum(len(data) for _, data, _ in made)
    print(f"{len(made)} pictures, {total / 1e6:.1f} MB, in {arguments.out}; labels of mosaics are 0 and mean nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
