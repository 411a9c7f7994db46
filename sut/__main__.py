"""``python -m sut``."""

from sut.cli import main

main()
