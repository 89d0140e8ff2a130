"""Echoes every request as one JSON document in the field x-seen. Prints the port it listens on and ends with its input.

http.server leaves content to its handlers, so this one reads it as such handlers do.
"""

import base64
import http.client
import http.server
import json
import os
import sys
import threading

http.client._MAXHEADERS = 10000


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.echo
        raise AttributeError(name)

    def echo(self):
        try:
            content = self.content()
        except ValueError:
            self.send_error(400)
            self.close_connection = True
            return
        seen = {
            "method": self.command,
            "target": self.path,
            "host": self.headers.get("host", ""),
            "fields": [[n, str(v)] for n, v in self.headers.items()],
            "content": content.decode("latin-1"),
        }
        self.send_response(200)
        self.send_header("x-seen", base64.b64encode(json.dumps(seen).encode()).decode())
        self.send_header("content-length", "0")
        self.end_headers()

    def content(self):
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return b"".join(self.chunks())
        n = int(self.headers.get("content-length", "0"))
        if n < 0:
            raise ValueError("length")
        return self.exactly(n)

    def chunks(self):
        while True:
            n = int(self.rfile.readline(1 << 16).split(b";")[0], 16)
            if n == 0:
                break
            yield self.exactly(n)
            if self.rfile.readline(1 << 16) not in (b"\r\n", b"\n"):
                raise ValueError("chunk")
        while True:
            line = self.rfile.readline(1 << 16)
            if not line:
                raise ValueError("trailer section")
            if line in (b"\r\n", b"\n"):
                return

    def exactly(self, n):
        b = self.rfile.read(n)
        if len(b) != n:
            raise ValueError("end of the connection")
        return b

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
os._exit(0)
