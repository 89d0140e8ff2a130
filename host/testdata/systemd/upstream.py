# Answers whether the right credential came, over TLS on port 8443 of the loopback. Where clouds keep credentials something listens too.
import http.server, socket, ssl

metadata = socket.create_server(("169.254.169.254", 80))

KEY = open("/root/src/key").read().strip()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        right = self.headers.get_all("Authorization") == ["Bearer " + KEY]
        body = b"right\n" if right else b"wrong\n"
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/src/cert.pem", "/root/src/cert.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
