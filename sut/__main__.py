"""``python -m sut``, and the console script."""

import sys


def main() -> None:
    """Run a command; a Ctrl-C that comes while the commands are still being imported ends it as quietly as later."""
    try:
        from sut.cli import main as run

        run()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
