"""The settings of the command: argument, variable, file, default; the check of each value; `--print-config`."""

from __future__ import annotations

import tomllib

import pytest

from vthreads._cli.serve import main
from vthreads._cli.serve.settings import SETTINGS, Choice, Flag, Many, Number
from vthreads._cli.serve.sources import find_settings, make_parser

FILE = """
application = "shop.site:app"
bind = ["0.0.0.0:80", "unix:/run/shop.sock"]
workers = 3
drain = 4
half_close = true

[limits]
request_seconds = 2.5
"""
# A value for each setting, other than its default.
OTHER = {
    "application": "shop.site:app",
    "app_dir": "/srv/é",
    "bind": ["127.0.0.1:1", "unix:/run/shop.sock"],
    "workers": 7,
    "root_path": "/shop",
    "certfile": "a\\b.pem",
    "keyfile": 'k"ey.pem',
    "admin": "[::1]:9900",
    "trusted_proxies": ["10.0.0.0/8", "unix"],
}


def other_value(setting):
    match setting.kind:
        case Flag():
            return not setting.default
        case Number():
            return OTHER.get(setting.name, 11)
        case Choice(words):
            return words[1]
        case _:
            return OTHER[setting.name]


def values(arguments=(), environment=None):
    found = find_settings(vars(make_parser().parse_args(arguments)), environment or {})
    return {name: each.value for name, each in found.items()}


def complaint(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert 2 == ended.value.code
    return capsys.readouterr().err


def test_the_first_place_that_has_a_value_wins(tmp_path):
    path = tmp_path / "serve.toml"
    path.write_text(FILE)
    environment = {"VTHREADS_SERVE_CONFIG": str(path), "VTHREADS_SERVE_WORKERS": "5", "VTHREADS_SERVE_DRAIN": "6"}
    found = values(["--workers", "2"], environment)
    assert (2, 6.0, 2.5) == (found["workers"], found["drain"], found["request_seconds"])
    assert ("shop.site:app", ["0.0.0.0:80", "unix:/run/shop.sock"]) == (found["application"], found["bind"])
    assert (True, True, 0) == (found["half_close"], found["cancel_when_gone"], found["drain_delay"])
    assert values(["--no-half-close", "--config", str(path)])["half_close"] is False


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_is_an_argument_a_variable_and_a_key(setting, tmp_path):
    value = other_value(setting)
    words = value if isinstance(setting.kind, Many) else [str(value)]
    if isinstance(setting.kind, Flag):
        arguments = [setting.option if value else setting.option.replace("--", "--no-")]
    else:
        arguments = words if setting is SETTINGS[0] else [setting.option, *words]
    assert value == values(arguments)[setting.name]
    assert value == values([], {setting.variable: " ".join(words)})[setting.name]
    # A variable of a flag accepts what people write.
    assert value != setting.default


def test_what_is_printed_is_a_file_with_the_same_values(tmp_path, capsys, monkeypatch):
    path = tmp_path / "serve.toml"
    given = {setting.variable: other_value(setting) for setting in SETTINGS}
    for name, value in given.items():
        monkeypatch.setenv(name, " ".join(value) if isinstance(value, list) else str(value))
    assert 0 == main(["--print-config", "--drain", "inf"])
    printed = capsys.readouterr().out
    path.write_text(printed)
    assert {**{setting.name: other_value(setting) for setting in SETTINGS}, "drain": float("inf")} == values(
        ["--config", str(path)]
    )
    assert "drain = inf  # command line" in printed
    assert "workers = 7  # VTHREADS_SERVE_WORKERS" in printed
    assert tomllib.loads(printed)["limits"]["request_seconds"] == 11


@pytest.mark.parametrize("setting", [each for each in SETTINGS if isinstance(each.kind, Number)], ids=lambda s: s.name)
@pytest.mark.parametrize("text", ["-1", "nan", "many", "true"])
def test_each_number_has_a_lower_bound(setting, text, capsys, tmp_path):
    least = setting.kind.least
    assert f"{setting.option}: must be a" in (text_of := complaint(capsys, ["a:b", f"{setting.option}={text}"]))
    assert f"number >= {least}, got" in text_of
    path = tmp_path / "serve.toml"
    line = f"{setting.name} = {text if text != 'many' else chr(34) + text + chr(34)}"
    path.write_text(f"[{setting.section}]\n{line}" if setting.section else line)
    text_of = complaint(capsys, ["a:b", "--config", str(path)])
    assert f"{setting.name} in {path}: must be a" in text_of


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("worker = 2", "has worker, which is not a setting; did you mean workers?"),
        ("header_seconds = 2", "has header_seconds, which is not a setting; did you mean limits.header_seconds?"),
        ("[limits]\ndrain = 2", "has limits.drain, which is not a setting; did you mean drain?"),
        ("half_close = 1", "half_close in {path}: must be true or false, got 1"),
        ("workers = 2.5", "workers in {path}: must be a whole number >= 1, got 2.5"),
        ('bind = "127.0.0.1:80"', "bind in {path}: must be a list, got '127.0.0.1:80'"),
        ('bind = ["nowhere"]', "bind in {path}: 'nowhere' is not an address"),
        ("bind = [80]", "bind in {path}: must be a string, got 80"),
        ('access_log = "xml"', "access_log in {path}: must be one of auto, off, json, common, got 'xml'"),
        ("= 2", "cannot read the settings in {path}: "),
    ],
)
def test_a_wrong_file_is_explained(file, expected, capsys, tmp_path):
    path = tmp_path / "serve.toml"
    path.write_text(file)
    assert expected.format(path=path) in complaint(capsys, ["a:b", "--config", str(path)])


def test_a_missing_file_is_explained(capsys, tmp_path):
    assert "No such file" in complaint(capsys, ["a:b", "--config", str(tmp_path / "missing.toml")])


def test_a_wrong_variable_is_explained_and_an_unknown_one_is_reported(capsys, monkeypatch):
    monkeypatch.setenv("VTHREADS_SERVE_WORKER", "2")
    monkeypatch.setenv("VTHREADS_SERVE_HALF_CLOSE", "perhaps")
    text = complaint(capsys, ["a:b"])
    assert "VTHREADS_SERVE_WORKER is not a setting and is ignored; did you mean workers?" in text
    assert "VTHREADS_SERVE_HALF_CLOSE: must be true or false, got 'perhaps'" in text
