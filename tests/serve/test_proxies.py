"""Trusted proxies: which client a request comes from, by fields and by the PROXY protocol; nothing without trust."""

from __future__ import annotations

import json
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vthreads import serve
from vthreads.serve._proxies import V2_SIGNATURE, TrustedProxies

from .conftest import run_with

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


# RFC 7239, 4 and 6.
@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ([b"for=5.5.5.5"], "5.5.5.5"),
        ([b"For=5.5.5.5 ; PROTO=https"], "5.5.5.5"),
        ([b'for="5.5.5.5:80"', b"for=4.4.4.4;by=10.0.0.1"], "4.4.4.4"),
        ([b"for=4.4.4.4:80;;"], "4.4.4.4"),
        ([b'for="[2001:db8::1]:_hidden"'], "2001:db8::1"),
        ([b"for=[2001:db8::1]"], "2001:db8::1"),
        ([b'for="4\\.4.4.4"'], "4.4.4.4"),
        ([b"for=5.5.5.5, for=10.1.1.1, for=10.2.2.2"], "5.5.5.5"),
        ([b'for=5.5.5.5;secret="for=6.6.6.6, for=7.7.7.7"'], "5.5.5.5"),
        ([b"for=5.5.5.5, for=unknown"], "10.0.0.1"),
        ([b"for=5.5.5.5, for=_hidden"], "10.0.0.1"),
        ([b"for=5.5.5.5, by=10.0.0.1"], "10.0.0.1"),
        ([b"for=5.5.5.5;for=6.6.6.6"], "10.0.0.1"),
        ([b"x-for=5.5.5.5"], "10.0.0.1"),
        ([b'a2="x;for=6.6.6.6"'], "10.0.0.1"),
        ([b'for="6.6.6.6'], "10.0.0.1"),
        ([b"for=6.6.6.6 for=7.7.7.7"], "10.0.0.1"),
        ([b'for=6.6.6.6;x="', b"for=4.4.4.4"], "4.4.4.4"),
        # A client has sent the part up to the quote, to which a proxy has appended.
        ([b'for=6.6.6.6;x=", for="[2001:db8::1]:80"'], "10.0.0.1"),
        ([b'for=6.6.6.6;x=", for=4.4.4.4'], "10.0.0.1"),
    ],
)
def test_chains_of_the_standard_field(fields, host):
    proxies = TrustedProxies(["10.0.0.0/8"], "forwarded")
    assert host == proxies.client_of("10.0.0.1", 1, [(b"forwarded", value) for value in fields]).host


@pytest.mark.parametrize(
    "address",
    [
        b"::1]",
        b"[::1",
        b"[::1]80",
        b"[::1]:x",
        b"5.5.5.5:99999",
        b"5.5.5.5:x",
        b"5.5.5",
        b"05.5.5.5",
        b"fe80::1%<b>",
        b"5.5.5.5 6.6.6.6",
        b"\xb2.5.5.5",
        b"localhost",
        b"-",
    ],
)
@pytest.mark.parametrize("family", ["x-forwarded", "forwarded"])
def test_what_is_not_an_address_does_not_name_a_client(family, address):
    name, value = (b"x-forwarded-for", address) if family == "x-forwarded" else (b"forwarded", b"for=" + address)
    found = TrustedProxies(["10.0.0.0/8"], family).client_of("10.0.0.1", 7, [(name, value)])
    assert ("10.0.0.1", 7) == (found.host, found.port)


PIECES = [
    "for=",
    "6.6.6.6",
    '"',
    "\\",
    ",",
    ";",
    "=",
    " ",
    "[",
    "]",
    ":",
    "::6",
    "x",
    "proto=https",
    "10.0.0.3",
    "unknown",
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.booleans(), st.sampled_from(["v4", "v6", "hidden"])
)
def test_what_a_client_sends_left_of_its_proxy_never_names_the_client(sent, in_one_line, kind):
    """A proxy appends to the field, or adds another one. Then it is the client, or unknown: never another address."""
    real = {"v4": "4.4.4.4", "v6": "2001:db8::4", "hidden": "unknown"}[kind]
    appended = {"v4": "for=4.4.4.4", "v6": 'for="[2001:db8::4]:80"', "hidden": "for=unknown"}[kind]
    for family, name, added in (("forwarded", b"forwarded", appended), ("x-forwarded", b"x-forwarded-for", real)):
        values = [f"{sent}, {added}"] if in_one_line else [sent, added]
        proxies = TrustedProxies(["10.0.0.0/8"], family)
        found = proxies.client_of("10.0.0.1", 1, [(name, value.encode()) for value in values])
        assert found.host in (real, "10.0.0.1")


@pytest.mark.parametrize("piece", [b"a", b" ", b'a="', b'"', b'"\\', b"for=x;", b"[", b":", b"1.", b","])
def test_long_fields_are_read_in_linear_time(piece):
    """Quadratic time would exceed the limit of the test run: 6 s for a field of 32 KiB."""
    for family, name in (("forwarded", b"forwarded"), ("x-forwarded", b"x-forwarded-for")):
        proxies = TrustedProxies(["10.0.0.0/8"], family)
        value = piece * (400_000 // len(piece))
        assert "10.0.0.1" == proxies.client_of("10.0.0.1", 1, [(name, value)]).host


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        # The client is hidden, and the proxy reports the rest.
        (b"X-Forwarded-Proto: https\r\n", ("127.0.0.1", "https", "a", None)),
        (b"X-Forwarded-For: unknown\r\nX-Forwarded-Proto: https\r\n", ("127.0.0.1", "https", "a", None)),
        (b"X-Forwarded-Host: b\r\nX-Forwarded-Port: 444\r\n", ("127.0.0.1", "http", "b", "444")),
        # All values are of the same hop, or of the outermost one if not all proxies add one.
        (
            (
                b"X-Forwarded-For: 6.6.6.6, 2.2.2.2, 127.0.0.9\r\nX-Forwarded-Proto: gopher, https, http\r\n"
                b"X-Forwarded-Host: x, shop.example, inner\r\nX-Forwarded-Port: 1, 443, 8080\r\n"
            ),
            ("2.2.2.2", "https", "shop.example", "443"),
        ),
        (b"X-Forwarded-For: 2.2.2.2, 127.0.0.9\r\nX-Forwarded-Port: 443\r\n", ("2.2.2.2", "http", "a", "443")),
        # Values that mean nothing.
        (b"X-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: javascript\r\n", ("2.2.2.2", "http", "a", None)),
        (b"X-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Host: a/b@c\r\n", ("2.2.2.2", "http", "a", None)),
        (b"X-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Port: 70000\r\n", ("2.2.2.2", "http", "a", None)),
    ],
)
def test_the_rest_of_the_report_of_a_proxy(with_app, fields, found):
    environ = ask(with_app, fields, trusted_proxies=["127.0.0.0/8"])
    port = None if found[3] is None else environ["SERVER_PORT"]
    assert found == (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"], port)


def test_the_standard_field_reports_the_scheme_of_a_hidden_client(with_app):
    options = {"trusted_proxies": ["127.0.0.1"], "forwarded_fields": "forwarded"}
    environ = ask(with_app, b"Forwarded: for=unknown;proto=https;host=b.example\r\n", **options)
    assert ("127.0.0.1", "https", "b.example") == tuple(environ[name] for name in NAMES[:3])


@pytest.mark.parametrize(
    ("options", "is_kept"),
    [
        ({}, False),
        ({"trusted_proxies": ["10.0.0.1"]}, False),
        ({"trusted_proxies": ["127.0.0.1"]}, True),
        ({"trusted_proxies": ["127.0.0.1"], "forwarded_fields": "forwarded"}, False),
    ],
)
def test_all_fields_of_the_family_need_trust(with_app, options, is_kept):
    """Also those without a meaning for the server, by which applications know a user."""
    fields = b"X-Forwarded-User: root\r\nX-Forwarded-Client-Cert: c\r\nX-FORWARDED-Anything: x\r\n"
    environ = ask(with_app, fields, **options)
    assert (["USER", "CLIENT_CERT", "ANYTHING"] if is_kept else []) == [
        name.removeprefix("HTTP_X_FORWARDED_") for name in environ if "FORWARDED" in name
    ]
    # The same head again, which is known by then.
    assert environ.keys() == ask(with_app, fields, **options).keys()


@pytest.mark.parametrize("wrong", [b"", b"a b", b"a\xff", b"x" * 129, b'"'])
def test_a_wrong_request_id_is_replaced(wrong):
    assert "" == TrustedProxies(["10.0.0.0/8"]).client_of("10.0.0.1", 1, [(b"x-request-id", wrong)]).request_id


# A proxy that appends its id after the one of the client would not be known by the first, nor by the second.
def test_two_request_ids_are_replaced_by_a_new_one(with_app):
    fields = b"X-Request-ID: of-the-client\r\nX-Request-ID: of-the-proxy\r\n"
    environ = ask(with_app, fields, trusted_proxies=["127.0.0.1"])
    assert environ["HTTP_X_REQUEST_ID"] not in ("", "of-the-client", "of-the-proxy")


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
def test_no_field_sets_the_root_path(with_app, trusted):
    fields = b"X-Forwarded-Prefix: /of-the-field\r\nScript-Name: /of-the-field\r\n"
    environ = ask(with_app, fields, trusted_proxies=trusted, root_path="/shop")
    assert "/shop" == environ["SCRIPT_NAME"]
    assert "HTTP_X_FORWARDED_PREFIX" not in environ


@pytest.mark.parametrize(
    ("trusted", "client"), [([], ""), (["0.0.0.0/0", "::/0"], ""), (["127.0.0.1", "unix"], "6.6.6.6")]
)
def test_a_peer_at_a_unix_socket_is_trusted_only_by_its_name(tmp_path, trusted, client):
    def program(_):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
            data = b""
            while piece := sock.recv(65536):
                data += piece
            return json.loads(data.partition(b"\r\n\r\n")[2])

    path = str(tmp_path / "socket")
    options = {"bind": [f"unix:{path}"], "trusted_proxies": trusted}
    environ = run_with(lambda ready: serve.wsgi(show, ready=ready, **options), program)
    assert client == environ["REMOTE_ADDR"]


def test_an_entry_that_is_no_network_is_explained():
    with pytest.raises(ValueError, match="write an address, a network or unix"):
        TrustedProxies(["proxy.example"])


V2 = V2_SIGNATURE + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, bytes([3, 3, 3, 3]), bytes(4), 77, 80)
ADDRESS_V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
V2_V6 = V2_SIGNATURE + struct.pack("!BBH16s16sHH", 0x21, 0x21, 36, ADDRESS_V6, bytes(16), 77, 80)
V2_LONGEST = V2_SIGNATURE + struct.pack("!BBH4s4sHH", 0x21, 0x11, 4096, bytes([3, 3, 3, 3]), bytes(4), 77, 80)
V2_UNSPECIFIED = V2_SIGNATURE + struct.pack("!BBH", 0x21, 0, 3) + bytes(3)
V2_LOCAL = V2_SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)
V2_TLV = V2_SIGNATURE + struct.pack("!BBH4s4sHH3s", 0x21, 0x11, 15, bytes([3, 3, 3, 3]), bytes(4), 77, 80, b"\4\0\0")


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (b"PROXY TCP4 3.3.3.3 4.4.4.4 77 80\r\n", "3.3.3.3"),
        (b"PROXY TCP6 2001:db8::1 ::1 77 80\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", None),
        # Section 2.1: the longest line has 107 bytes, its end included.
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
        (V2, "3.3.3.3"),
        (V2_V6, "2001:db8::1"),
        (V2_TLV, "3.3.3.3"),
        (V2_LONGEST + bytes(4096 - 12), "3.3.3.3"),
        (V2_UNSPECIFIED, None),
        (V2_LOCAL, None),
    ],
)
def test_the_proxy_protocol_names_the_client(with_app, header, host):
    options = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    environ = ask(with_app, b"", before=header, **options)
    assert (host or "127.0.0.1") == environ["REMOTE_ADDR"]
    # Without a client, it is the port of the proxy's connection.
    assert (environ["REMOTE_PORT"] == "77") == (host is not None)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY TCP4 3.3.3.3\r\n",
        b"PROXY TCP4 x 4.4.4.4 77 80\r\n",
        b"PROXY TCP4 3.3.3.3 4.4.4.4 77777 80\r\n",
        b"PROXY TCP4 3.3.3.3 4.4.4.4 77 77777\r\n",
        b"PROXY TCP4 3.3.3.3 x 77 80\r\n",
        b"PROXY TCP4 ::3 ::4 77 80\r\n",
        b"PROXY TCP6 3.3.3.3 4.4.4.4 77 80\r\n",
        b"PROXY TCP6 fe80::1%lo ::4 77 80\r\n",
        b"PROXY  TCP4 3.3.3.3 4.4.4.4 77 80\r\n",
        b"PROXY TCP4 3.3.3.3 4.4.4.4 77 80 \r\n",
        b"PROXY UDP4 3.3.3.3 4.4.4.4 77 80\r\n",
        b"proxy TCP4 3.3.3.3 4.4.4.4 77 80\r\n",
        b"PROXY TCP4 " + b"3" * 200,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        V2_SIGNATURE + struct.pack("!BBH", 0x22, 0x11, 12) + bytes(12),
        V2_SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 4097) + bytes(4097),
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


def test_fields_of_a_client_that_the_proxy_protocol_names_need_its_trust(with_app):
    """A proxy that passes bytes on does not touch the fields: they are those of the client."""
    options = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]}
    fields = b"X-Forwarded-For: 6.6.6.6\r\nX-Request-ID: mine\r\n"
    environ = ask(with_app, fields, before=b"PROXY TCP4 3.3.3.3 4.4.4.4 77 80\r\n", **options)
    assert ("3.3.3.3", "77") == (environ["REMOTE_ADDR"], environ["REMOTE_PORT"])
    assert "mine" != environ["HTTP_X_REQUEST_ID"]
    assert "HTTP_X_FORWARDED_FOR" not in environ
    environ = ask(with_app, fields, before=b"PROXY TCP4 10.0.0.7 4.4.4.4 77 80\r\n", **options)
    assert ("6.6.6.6", "mine") == (environ["REMOTE_ADDR"], environ["HTTP_X_REQUEST_ID"])


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
