"""A guest in a few lines, written from SPEC.md alone, with nothing but Python's standard library.

    client.py SOCKET KEY.der AUTHORITY

says hello on the broker's Unix socket, asks for a leaf certificate for AUTHORITY's host and the P-256
public key in KEY.der (PKIX), makes a GET and then a POST to https://AUTHORITY/ on one forward stream,
and prints what came of each as one JSON object.
"""

import base64
import json
import os
import socket
import sys

MAGIC, VERSION = b"torno", 1
HELLO, CHANNEL, FORWARD = 1, 2, 3


class Malformed(Exception):
    pass


def integer(n):
    """RFC 9000 section 16, in the shortest form."""
    for bits, size in ((6, 1), (14, 2), (30, 4), (62, 8)):
        if n < 1 << bits:
            return (n | (size.bit_length() - 1) << (size * 8 - 2)).to_bytes(size, "big")
    raise ValueError(n)


def string(s):
    b = s.encode("ascii")
    return integer(len(b)) + b


class Stream:
    """One stream after its preface; one exchange at a time."""

    def __init__(self, path, kind, token=bytes(32)):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")
        self.sock.sendall(MAGIC + VERSION.to_bytes(2, "big") + bytes([kind]) + token)
        magic, version, status = self.take(5), self.take(2), self.take(1)[0]
        if magic != MAGIC or int.from_bytes(version, "big") != VERSION:
            raise Malformed("preface")
        if status:
            raise ConnectionRefusedError(f"preface status {status}")

    def take(self, n):
        b = self.file.read(n)
        if len(b) != n:
            raise EOFError("the stream ended within a message")
        return b

    def integer(self):
        first = self.take(1)[0]
        size = 1 << (first >> 6)
        n = int.from_bytes(bytes([first & 0x3F]) + self.take(size - 1), "big")
        if size > 1 and n < 1 << ({2: 6, 4: 14, 8: 30}[size]):
            raise Malformed("an integer longer than needed")
        return n

    def section(self):
        fields = []
        while (n := self.integer()) != 0:
            if n > 256 or len(fields) >= 256:
                raise Malformed("section too large")
            name = self.take(n).decode("ascii")
            size = self.integer()
            if size > 65536:
                raise Malformed("value too large")
            fields.append((name, self.take(size).decode("latin-1")))
        return fields

    def exchange(self, method, scheme, authority, path, content=b"", fields=()):
        """Sends one request and returns (status, fields, content, trailers)."""
        out = integer(2) + string(method) + string(scheme) + string(authority) + string(path)
        for name, value in fields:
            out += string(name) + string(value)
        out += b"\x00"
        for i in range(0, len(content), 65536):
            chunk = content[i : i + 65536]
            out += integer(len(chunk)) + chunk
        self.sock.sendall(out + b"\x00" + b"\x00")  # the end of content, and no trailers
        if self.integer() != 3:
            raise Malformed("framing indicator")
        for _ in range(9):
            status, head = self.integer(), None
            head = self.section()
            if status >= 200:
                break
        else:
            raise Malformed("too many interim responses")
        body = b""
        while (n := self.integer()) != 0:
            body += self.take(n)
        return status, dict(head), body, self.section()


def ask(stream, path, body):
    """One channel request with JSON both ways."""
    fields = [("content-type", "application/json")]
    status, head, content, _ = stream.exchange("POST", "torno", "broker", path, json.dumps(body).encode(), fields)
    if status != 200:
        raise ConnectionRefusedError(f"{path}: {status} {head.get('torno-reason')}")
    return json.loads(content)


def main(path, key, authority):
    nonce = base64.b64encode(os.urandom(32)).decode()
    hello = ask(Stream(path, HELLO), "/v1/hello", {"nonce": nonce, "guest": "client.py"})
    token = base64.b64decode(hello["token"])
    with open(key, "rb") as f:
        public = base64.b64encode(f.read()).decode()
    leaf = ask(Stream(path, CHANNEL, token), "/v1/leaf", {"name": authority.split(":")[0], "key": public})
    stream = Stream(path, FORWARD, token)
    results = []
    for method, content in (("GET", b""), ("POST", b"x" * 100000)):
        status, head, body, trailers = stream.exchange(method, "https", authority, "/", content)
        results.append({"status": status, "content": body.decode(), "trailers": trailers})
    status, head, body, _ = stream.exchange("GET", "https", "torno.invalid", "/")
    results.append({"status": status, "reason": head.get("torno-reason")})
    try:
        Stream(path, HELLO)
        again = "open"
    except ConnectionRefusedError as e:
        again = str(e)
    print(json.dumps({
        "agent": hello["agent"], "ca": hello["ca"], "certificate": leaf["certificate"],
        "not_after": leaf["not_after"], "results": results, "second_hello": again,
    }))


if __name__ == "__main__":
    main(*sys.argv[1:])
