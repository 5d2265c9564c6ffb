"""Runs tests against one source after the other: a process that has imported what never changes, and forks for each.

One line of JSON comes for each run ({"source": folder, "tests": [node ids]}), one goes back: {"status", "outcomes",
"log"}. The package itself is imported after the fork, and so is every test.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import pytest

HEAVY = (
    "apsw argon2 asyncio bcrypt cryptography.x509 dns.asyncresolver dns.message hypothesis.stateful idna pydantic "
    "prometheus_client pytest_asyncio.plugin rich.console starlette.applications structlog typer uvicorn uvloop"
)
"""Of what tests and package import; a fork has them at once."""
for _name in HEAVY.split():
    __import__(_name)

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT_S = 120
"""A planted bug may make a test wait for ever."""


class Verdicts:
    """What became of each test: "passed", or where it failed and with which exceptions."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        # (What follows a failed test, such as closing what it broke, says nothing more.)
        if call.excinfo is not None and report.failed and not self.outcomes.get(item.nodeid, "").startswith("call "):
            self.outcomes[item.nodeid] = f"{call.when} {' '.join(sorted(set(_kinds(call.excinfo.value))))}"
        elif report.skipped:
            self.outcomes[item.nodeid] = "skipped"
        elif report.passed and call.when == "call":
            self.outcomes[item.nodeid] = "passed"
        return report


def _kinds(error: BaseException) -> list[str]:
    """The names of the exceptions in a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return [kind for each in error.exceptions for kind in _kinds(each)]
    return [type(error).__name__]


def run(source: str, tests: list[str], into: str) -> None:
    """In the fork: run the tests, write what came of them."""
    os.chdir(ROOT)
    # Tests that start the program itself find it through this.
    os.environ["PYTHONPATH"] = source
    sys.dont_write_bytecode = True
    verdicts = Verdicts()
    options = ["-q", "--tb=short", "-p", "no:cacheprovider"]
    options += ["-p", "pytest_asyncio.plugin", "-p", "_hypothesis_pytestplugin"]
    # What a failed test leaves open says nothing more about the mutant.
    options += ["-p", "no:unraisableexception", "-p", "no:threadexception"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-o", f"pythonpath={source} {ROOT}"]
    status = int(pytest.main([*options, "-o", "addopts=--import-mode=importlib", *tests], plugins=[verdicts]))
    package = sys.modules.get("posthouse")
    if status in (0, 1) and (package is None or not str(package.__file__).startswith(source)):
        status = int(pytest.ExitCode.INTERNAL_ERROR)
    Path(into).write_text(json.dumps({"status": status, "outcomes": verdicts.outcomes}))


def fork_and_run(source: str, tests: list[str]) -> dict[str, Any]:
    """What came of the tests; status 124 when they did not end."""
    with tempfile.TemporaryDirectory() as folder:
        log, into = Path(folder) / "log", Path(folder) / "result"
        child = os.fork()
        if child == 0:
            _in_the_fork(source, tests, log, into)
        descriptor = os.pidfd_open(child)
        ended, _, _ = select.select([descriptor], [], [], TIME_LIMIT_S)
        os.close(descriptor)
        if not ended:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said = log.read_text(errors="replace") if log.exists() else ""
        if into.exists():
            return {**json.loads(into.read_text()), "log": said}
        return {"status": 3 if ended else 124, "outcomes": {}, "log": said}


def _in_the_fork(source: str, tests: list[str], log: Path, into: Path) -> None:
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        run(source, tests, str(into))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Whatever was raised, there is one zygote only.
        os._exit(0)


def main() -> None:
    gc.collect()
    gc.freeze()
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    # Looking for plugins takes longer than most of the tests.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(fork_and_run(asked["source"], asked["tests"])), flush=True)


if __name__ == "__main__":
    main()
