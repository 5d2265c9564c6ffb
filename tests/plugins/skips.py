"""`--no-skips`: a skipped test is a failure.

A skip says that this machine lacks something; on CI nothing may be lacking, or a test that never runs looks green.
"""

from __future__ import annotations

import os

import pytest

FAILED = pytest.ExitCode.TESTS_FAILED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=os.environ.get("CI") == "true",
        help="fail if any test was skipped (the default when CI=true)",
    )


def skipped_reports(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("skipped", [])) if reporter else []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("--no-skips") and skipped_reports(config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = skipped_reports(config)
    if config.getoption("--no-skips") and skipped:
        terminalreporter.section("skipped tests are failures here", red=True, bold=True)
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.line(f"{report.nodeid}: {reason}")
