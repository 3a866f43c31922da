"""The error log of the command, the request id on log records, and the count of dropped lines."""

from __future__ import annotations

import io
import json
import logging

import pytest

from vthreads import serve
from vthreads._cli.serve.logs import JsonFormatter
from vthreads.serve._access_log import AccessLog
from vthreads.serve._admin import metrics_text
from vthreads.serve._board import Board
from vthreads.serve._sight import Sight

from .test_command import fetch, serving
from .test_operation import value_of
from .test_workers import stop

APP = """
    import logging

    CONFIGURE

    def app(environ, start_response):
        logging.getLogger("shop").warning("asked for %s", environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", "5")])
        return [environ["HTTP_X_REQUEST_ID"].encode()[:5]]
"""


@pytest.mark.real
@pytest.mark.parametrize("kind", ["json", "text"])
def test_records_of_the_application_have_the_request_id(tmp_path, kind):
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--error-log", kind
    with serving(tmp_path, *command, app=APP.replace("CONFIGURE", "")) as (process, port):
        begin = fetch(port, "x").decode()
        line = process.stderr.readline()
        stop(process)
    if kind == "text":
        assert "WARNING shop [" in line
        assert line.rstrip().endswith("asked for /x")
        assert f" {begin}" in line
        return
    record = json.loads(line)
    assert ("WARNING", "shop", "asked for /x", process.pid) == (
        record["level"],
        record["logger"],
        record["message"],
        record["process"],
    )
    assert record["request_id"].startswith(begin)


@pytest.mark.real
def test_the_logging_of_the_application_wins(tmp_path):
    app = APP.replace("CONFIGURE", "logging.basicConfig(format='mine: %(message)s')")
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--error-log", "json"
    with serving(tmp_path, *command, app=app) as (process, port):
        fetch(port, "x")
        assert "mine: asked for /x\n" == process.stderr.readline()
        stop(process)


def test_a_failure_is_one_line_of_json():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(serve.RequestIdFilter())
    logger = logging.getLogger("test_a_failure_is_one_line_of_json")
    logger.addHandler(handler)
    try:
        raise ValueError("wrong\nvalue")
    except ValueError:
        logger.exception("failed", stack_info=True)
    finally:
        logger.removeHandler(handler)
    record = json.loads(stream.getvalue())
    assert 1 == stream.getvalue().count("\n")
    assert record["exception"].endswith("ValueError: wrong\nvalue")
    assert ("failed", "", True) == (record["message"], record["request_id"], "stack" in record)


def test_an_id_that_the_record_has_already_stays():
    record = logging.makeLogRecord({"request_id": "a"})
    assert serve.RequestIdFilter().filter(record)
    assert "a" == record.request_id


def test_dropped_lines_of_the_access_log_are_a_metric():
    board = Board(1)
    log = AccessLog(io.StringIO(), "json")
    try:
        sight = Sight(board.rows[0], log)
        for total in (3, 3, 5):
            log.dropped = total
            sight.count_dropped()
            assert total == value_of(metrics_text(board), "vthreads_serve_access_log_dropped_total")
        Sight(board.rows[0], None).count_dropped()
    finally:
        log.close()
