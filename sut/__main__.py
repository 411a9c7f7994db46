"""``python -m sut``, and the console script."""

import sys

from sut.process.signals import ignore, note_all


def main() -> None:
    """Run a command; what is wrong with a package that the commands need is one line, too."""
    ending = note_all()
    try:
        from sut.cli.app import main as run
    except (Exception, SystemExit) as error:  # a broken package raises anything
        if ending.came:  # which is only noted yet: it is no failure, whatever a package made of it
            print("error: interrupted", file=sys.stderr)
            code: int | None = 130
        elif (code := _without_commands(error)) is None:
            raise
    else:
        code = run(ending)
    ignore()  # all is done but leaving
    sys.exit(code)


def _without_commands(error: BaseException) -> int | None:
    """The exit code where the commands cannot be imported; None where that is no package's fault."""
    from sut.errors import broken_import

    if (text := broken_import(error)) is None:
        return None
    if sys.argv[1:2] == ["doctor"]:
        from sut.cli.doctor.report import command

        return command("--json" in sys.argv)
    print(f"error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
