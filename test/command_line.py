"""The ``localizer`` command as tests call it: in this process, its known errors as one line."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from localizer_ros.cli.main import app


def localizer(*arguments: str | Path) -> Result:
    """What the command prints and how it ends."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def one_line(result: Result) -> str:
    """Standard error of a command that ended with a known error."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("localizer: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr
