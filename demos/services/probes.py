"""Just enough of each protocol to know that a login works: a TCP connect alone says nothing.

A listener may be somebody else's, may hang, may be a server that is still starting or that wants a password.
Each probe returns when the server let us in and raises ProbeError, with the reason, when it did not.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import hmac
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

LONGEST = 1 << 20  # no answer to a login is longer: whoever announces more speaks another protocol


class ProbeError(Exception):
    """The server did not let us in; the message says why."""


@dataclass
class _Wire:
    """A socket with one deadline for everything: a server that trickles bytes cannot hold us."""

    socket: socket.socket
    deadline: float

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def exactly(self, count: int) -> bytes:
        if count < 0 or count > LONGEST:
            raise ProbeError("the answer is not of this protocol")
        data = b""
        while len(data) < count:
            self._hurry()
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ProbeError("the server closed the connection during the login")
            data += piece
        return data

    def send(self, data: bytes) -> None:
        self._hurry()
        self.socket.sendall(data)

    def _hurry(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self.socket.settimeout(left)


def redacted(url: str) -> str:
    """The URL without its password, for messages."""
    password = _split(url).password
    return url.replace(f":{password}@", ":***@") if password else url


def postgres_login(url: str, timeout: float = 3.0) -> None:
    """Logs in to the PostgreSQL of a URL: trust, clear text, MD5 and SCRAM-SHA-256 passwords, TLS."""
    parts = _split(url, "postgresql", "postgres")
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    host = query.get("host") or parts.hostname or "localhost"
    port = parts.port or int(query.get("port") or "5432")
    user = unquote(parts.username or "") or query.get("user") or getpass.getuser()
    password = unquote(parts.password or "") or query.get("password") or os.environ.get("PGPASSWORD")
    database = unquote(parts.path.lstrip("/")) or query.get("dbname") or query.get("database") or user
    # Loopback needs no TLS unless it is asked for: one round trip less.
    near = host.startswith("/") or host in ("127.0.0.1", "::1", "localhost")
    tls = query.get("sslmode") or query.get("ssl") or ("disable" if near else "prefer")
    try:
        with _connect(host, port, timeout, f".s.PGSQL.{port}") as wire:
            if tls not in ("disable", "allow"):
                _postgres_tls(wire, host, required=tls != "prefer")
            body = b"user\0" + user.encode() + b"\0database\0" + database.encode() + b"\0\0"
            wire.send(struct.pack("!ii", len(body) + 8, 196608) + body)
            _postgres_session(wire, user, password)
    except (OSError, struct.error, ValueError, KeyError, IndexError) as error:
        raise ProbeError(str(error) or type(error).__name__) from error


def _postgres_tls(wire: _Wire, host: str, *, required: bool) -> None:
    wire.send(struct.pack("!ii", 8, 80877103))
    answer = wire.exactly(1)
    if answer == b"S":
        # Whether the certificate is good is for the client library to decide, with the user's own settings.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        wire.socket = context.wrap_socket(wire.socket, server_hostname=host)
    elif answer != b"N" or required:
        raise ProbeError("the server does not speak TLS")


def _postgres_session(wire: _Wire, user: str, password: str | None) -> None:
    scram = _Scram(password or "")
    while True:
        kind, size = struct.unpack("!ci", wire.exactly(5))
        data = wire.exactly(size - 4)
        if kind == b"E":
            fields = {part[:1]: part[1:].decode(errors="replace") for part in data.split(b"\0")}
            raise ProbeError(fields.get(b"M", "refused"))
        if kind == b"Z":
            return
        if kind == b"R":
            request = struct.unpack("!i", data[:4])[0]
            if request not in (0, 12) and password is None:
                raise ProbeError(f"a password is needed for user {user!r}")
            if answer := _postgres_answer(request, data[4:], user, password or "", scram):
                wire.send(b"p" + struct.pack("!i", len(answer) + 4) + answer)
        elif kind not in b"SKN":
            raise ProbeError("the answer is not PostgreSQL's")


def _postgres_answer(request: int, data: bytes, user: str, password: str, scram: _Scram) -> bytes:
    """What the server wants to hear next; nothing after AuthenticationOk (0) and SASLFinal (12)."""
    if request in (0, 12):
        return b""
    if request == 3:
        return password.encode() + b"\0"
    if request == 5:
        inner = hashlib.md5(password.encode() + user.encode()).hexdigest().encode()
        return b"md5" + hashlib.md5(inner + data[:4]).hexdigest().encode() + b"\0"
    if request == 10:
        first = scram.first()
        return b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first
    if request == 11:
        return scram.final(data)
    raise ProbeError(f"the server wants authentication method {request}, which this check cannot do")


class _Scram:
    """The client's two messages of SCRAM-SHA-256 (RFC 7677)."""

    def __init__(self, password: str) -> None:
        self.password = password.encode()
        self.nonce = base64.b64encode(os.urandom(18))

    def first(self) -> bytes:
        return b"n,,n=,r=" + self.nonce

    def final(self, challenge: bytes) -> bytes:
        fields = dict(item.split(b"=", 1) for item in challenge.split(b","))
        salt, rounds = base64.b64decode(fields[b"s"]), int(fields[b"i"])
        salted = hashlib.pbkdf2_hmac("sha256", self.password, salt, rounds)
        key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = b"c=biws,r=" + fields[b"r"]
        signed = b"n=,r=" + self.nonce + b"," + challenge + b"," + without_proof
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return without_proof + b",p=" + base64.b64encode(proof)


def amqp_login(url: str, timeout: float = 3.0) -> None:
    """Logs in to the AMQP 0-9-1 broker of a URL with PLAIN, and opens its virtual host."""
    parts = _split(url, "amqp", "amqps")
    host = parts.hostname or "localhost"
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    vhost = unquote(parts.path[1:]) or "/"
    try:
        with _connect(host, port, timeout) as wire:
            if parts.scheme == "amqps":
                wire.socket = ssl.create_default_context().wrap_socket(wire.socket, server_hostname=host)
            wire.send(b"AMQP\0\0\x09\x01")
            _amqp_expect(wire, 10)  # Start
            login = f"\0{user}\0{password}".encode()
            # An empty table would do, but only a client that asks for it is told why a login failed.
            wants = b"\x1cauthentication_failure_closet\x01"
            properties = b"\x0ccapabilitiesF" + struct.pack("!I", len(wants)) + wants
            _amqp_send(wire, 11, _long(properties) + b"\x05PLAIN" + _long(login) + b"\x05en_US")
            tune = _amqp_expect(wire, 30)
            _amqp_send(wire, 31, tune)  # TuneOk: as the server proposes
            _amqp_send(wire, 40, bytes([len(vhost.encode())]) + vhost.encode() + b"\0\0")  # Open
            _amqp_expect(wire, 41)
            _amqp_send(wire, 50, b"\0\xc8\0\0\0\0\0")  # Close, so that the broker logs no lost connection
    except (OSError, struct.error, ValueError, IndexError) as error:
        raise ProbeError(str(error) or type(error).__name__) from error


def _long(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def _amqp_send(wire: _Wire, method: int, arguments: bytes) -> None:
    payload = struct.pack("!HH", 10, method) + arguments
    wire.send(struct.pack("!BHI", 1, 0, len(payload)) + payload + b"\xce")


def _amqp_expect(wire: _Wire, method: int) -> bytes:
    while True:
        header = wire.exactly(7)
        kind, _channel, size = struct.unpack("!BHI", header)
        if header[:4] == b"AMQP" or kind not in (1, 8):
            raise ProbeError("the answer is not AMQP 0-9-1")
        payload = wire.exactly(size + 1)[:-1]
        if kind == 8:  # a heartbeat
            continue
        got = struct.unpack("!HH", payload[:4])
        if got == (10, 50):
            raise ProbeError(payload[7 : 7 + payload[6]].decode(errors="replace"))
        if got != (10, method):
            raise ProbeError("the answer is not AMQP 0-9-1")
        return payload[4:]


def http_probe(url: str, name: str, timeout: float = 2.0) -> None:
    """A request that a server of this name answers well."""
    parts = _split(url, "http")
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
    except (OSError, HTTPException) as error:
        raise ProbeError(f"no answer: {error}") from error
    finally:
        connection.close()
    who = answer.getheader("server", "somebody else")
    if not who.startswith(name) or not 200 <= answer.status < 300:
        raise ProbeError(f"{who} answers {answer.status}")


def _split(url: str, *schemes: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError as error:
        raise ProbeError(f"not a URL: {error}") from error
    if schemes and parts.scheme not in schemes:
        raise ProbeError(f"not a URL that begins with {schemes[0]}://")
    return parts


def _connect(host: str, port: int, timeout: float, unix_name: str = "") -> _Wire:
    deadline = time.monotonic() + timeout
    if not host.startswith("/"):
        return _Wire(socket.create_connection((host, port), timeout), deadline)
    wire = _Wire(socket.socket(socket.AF_UNIX), deadline)
    with contextlib.ExitStack() as stack:
        stack.enter_context(wire)
        wire.socket.settimeout(timeout)
        wire.socket.connect(str(Path(host, unix_name)))
        stack.pop_all()
    return wire
