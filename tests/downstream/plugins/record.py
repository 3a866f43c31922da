"""A pytest plugin that records the outcome of each test at once, so that a killed run leaves its record."""

import os

log = open(os.environ["DOWNSTREAM_LOG"], "a", buffering=1)  # noqa: SIM115 - as long as the process


def pytest_runtest_logstart(nodeid):
    print("started", nodeid, sep="\t", file=log)


def pytest_runtest_logreport(report):
    # The phases of one test: where something else than "passed" comes out, that counts.
    outcome = "error" if report.failed and report.when != "call" else report.outcome
    if report.when == "call" or outcome != "passed":
        print(outcome, report.nodeid, sep="\t", file=log)


def pytest_collectreport(report):
    if report.failed:
        print("error", report.nodeid, sep="\t", file=log)


def pytest_unconfigure():
    log.close()
