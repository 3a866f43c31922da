"""Trusted proxies: which client a request comes from, by fields and by the PROXY protocol; nothing without trust."""

from __future__ import annotations

import json
import struct

import pytest

from vthreads import serve
from vthreads.serve._proxies import V2_SIGNATURE, TrustedProxies

NAMES = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SERVER_PORT", "HTTP_X_FORWARDED_FOR", "HTTP_X_REQUEST_ID")


def show(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps({name: environ.get(name) for name in environ if isinstance(environ[name], str)}).encode()]


def ask(with_app, fields, *, before=b"", **options):
    """The environ of a request with `fields`."""
    data = before + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%b\r\n" % fields
    answer = with_app(show, lambda site: site.ask(data), **options)
    return json.loads(answer.partition(b"\r\n\r\n")[2]) if answer else None


FIELDS = (
    b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n"
    b"X-Forwarded-Port: 443\r\nX-Request-ID: abc-1\r\nForwarded: for=9.9.9.9\r\nX-Real-IP: 8.8.8.8\r\n"
)


def test_without_trust_nothing_of_it_is_passed_on(with_app):
    environ = ask(with_app, FIELDS)
    assert ("127.0.0.1", "http", "a") == tuple(environ[name] for name in NAMES[:3])
    assert not [name for name in environ if "FORWARDED" in name or "REAL" in name]
    assert environ["HTTP_X_REQUEST_ID"] not in ("", "abc-1")


def test_the_first_address_from_the_right_that_is_not_trusted_is_the_client(with_app):
    environ = ask(with_app, FIELDS, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    found = tuple(environ[name] for name in NAMES)
    assert ("2.2.2.2", "https", "shop.example", "443", "2.2.2.2, 10.0.0.5", "abc-1") == found
    assert "HTTP_FORWARDED" not in environ


def test_only_the_chosen_family_counts(with_app):
    fields = b'Forwarded: for="[2001:db8::1]:4711";proto=https;host="b.example"\r\nX-Forwarded-For: 6.6.6.6\r\n'
    environ = ask(with_app, fields, trusted_proxies=["127.0.0.1"], forwarded_fields="forwarded")
    found = tuple(environ[name] for name in NAMES[:3])
    assert ("2001:db8::1", "https", "b.example") == found
    assert "4711" == environ["REMOTE_PORT"]


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ([b"5.5.5.5"], "5.5.5.5"),
        ([b"5.5.5.5", b"4.4.4.4"], "4.4.4.4"),
        ([b"5.5.5.5, unknown"], "10.0.0.1"),
        ([b"garbage"], "10.0.0.1"),
        ([b""], "10.0.0.1"),
        ([b"4.4.4.4:80"], "4.4.4.4"),
        ([b"::ffff:10.0.0.2"], "10.0.0.2"),
        ([b"5.5.5.5, 10.1.1.1, 10.2.2.2"], "5.5.5.5"),
        ([b"10.3.3.3, 10.1.1.1"], "10.3.3.3"),
    ],
)
def test_chains(fields, host):
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert host == proxies.client_of("10.0.0.1", 1, [(b"x-forwarded-for", value) for value in fields]).host


@pytest.mark.parametrize("wrong", [b"", b"a b", b"a\xff", b"x" * 129, b'"'])
def test_a_wrong_request_id_is_replaced(wrong):
    assert "" == TrustedProxies(["10.0.0.0/8"]).client_of("10.0.0.1", 1, [(b"x-request-id", wrong)]).request_id


def test_an_entry_that_is_no_network_is_explained():
    with pytest.raises(ValueError, match="write an address, a network or unix"):
        TrustedProxies(["proxy.example"])


V2 = V2_SIGNATURE + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, bytes([3, 3, 3, 3]), bytes(4), 77, 80)
V2_LOCAL = V2_SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)
V2_TLV = V2_SIGNATURE + struct.pack("!BBH4s4sHH3s", 0x21, 0x11, 15, bytes([3, 3, 3, 3]), bytes(4), 77, 80, b"\4\0\0")


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (b"PROXY TCP4 3.3.3.3 4.4.4.4 77 80\r\n", "3.3.3.3"),
        (b"PROXY TCP6 2001:db8::1 ::1 77 80\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (V2, "3.3.3.3"),
        (V2_TLV, "3.3.3.3"),
        (V2_LOCAL, "127.0.0.1"),
    ],
)
def test_the_proxy_protocol_names_the_client(with_app, header, host):
    options = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    assert host == ask(with_app, b"", before=header, **options)["REMOTE_ADDR"]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY TCP4 3.3.3.3\r\n",
        b"PROXY TCP4 x 4.4.4.4 77 80\r\n",
        b"PROXY TCP4 3.3.3.3 4.4.4.4 77777 80\r\n",
        b"PROXY TCP4 " + b"3" * 200,
        V2_SIGNATURE + struct.pack("!BBH", 0x31, 0x11, 12) + bytes(12),
        V2_SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 4) + bytes(4),
    ],
)
def test_a_trusted_peer_without_a_correct_header_is_not_served(with_app, header):
    def program(site):
        with site.client() as client:
            client.send(header + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            try:
                return client.rest()
            except ConnectionResetError:
                return b""

    assert b"" == with_app(show, program, proxy_protocol=True, trusted_proxies=["127.0.0.1"])


def test_a_peer_without_trust_cannot_use_the_proxy_protocol(with_app):
    data = b"PROXY TCP4 3.3.3.3 4.4.4.4 77 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = with_app(show, lambda site: site.ask(data), proxy_protocol=True, trusted_proxies=["10.0.0.1"])
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_handlers_find_the_request_id_of_their_own_request(with_app):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{serve.request_id()} {environ['HTTP_X_REQUEST_ID']}".encode()]

    def program(site):
        with site.client() as client:
            answers = []
            for _ in range(3):
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answers.append(client.answer()[2].split())
            return answers

    answers = with_app(app, program)
    assert all(one == other for one, other in answers)
    assert 3 == len({one for one, _ in answers})
    assert "" == serve.request_id()
