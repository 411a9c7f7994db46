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
    except Exception as error:  # of the imports alone: the commands let none pass
        from sut.installed import broken_import

        if (text := broken_import(error)) is None:
            raise
        if sys.argv[1:2] == ["doctor"]:
            from sut.doctor import command

            sys.exit(command("--json" in sys.argv))
        print(f"error: {text}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
