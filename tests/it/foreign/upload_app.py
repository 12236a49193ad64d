"""Takes uploads of any size and says what arrived. HTTP/1.1, fixed and chunked bodies, one thread per connection."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pieces(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                while size:
                    piece = self.rfile.read(min(size, 65536))
                    size -= len(piece)
                    yield piece
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length", "0"))
        while left:
            piece = self.rfile.read(min(left, 65536))
            left -= len(piece)
            yield piece

    def take(self):
        total, digest = 0, hashlib.sha256()
        for piece in self.pieces():
            total += len(piece)
            digest.update(piece)
        framing = "chunked" if "Transfer-Encoding" in self.headers else "fixed"
        body = json.dumps([self.command, framing, total, digest.hexdigest()]).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = take

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Five, as usual, are overrun by fifty connections at once, which then wait for seconds or are reset by the system.
    request_queue_size = 128


server = Server(("127.0.0.1", 0), App)
print("port", server.server_address[1])
server.serve_forever()
