"""A WSGI app as a component: its module `app` becomes a `wasi:http` incoming handler.

The first request is answered while the component is made, as wasgi's `warmup` does it, so that instances have in them
what it imports, compiles and caches.
"""

import io
import sys

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import types
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import Fields, IncomingBody, OutgoingBody, OutgoingResponse, ResponseOutparam

from app import app


def environ(method, target, headers, body):
    path, _, query = target.partition("?")
    made = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": True,
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            key = "HTTP_" + key
        made[key] = value.decode("latin-1")
    return made


def run(made):
    """Status, headers and body of the app's reply."""
    head = []

    def start_response(status, headers, exc_info=None):
        head[:] = [int(status.split(" ", 1)[0]), [(name, value.encode("latin-1")) for name, value in headers]]

    reply = app(made, start_response)
    try:
        body = b"".join(reply)
    finally:
        if hasattr(reply, "close"):
            reply.close()
    return *head, body


def read(request):
    incoming = request.consume()
    pieces = []
    with incoming.stream() as stream:
        while True:
            try:
                pieces.append(stream.blocking_read(1 << 16))
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    break
                raise
    IncomingBody.finish(incoming)
    return b"".join(pieces)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        posts = isinstance(request.method(), types.Method_Post)
        made = environ(
            "POST" if posts else "GET",
            request.path_with_query() or "/",
            request.headers().entries(),
            io.BytesIO(read(request) if posts else b""),
        )
        status, headers, body = run(made)
        response = OutgoingResponse(Fields.from_list(headers))
        response.set_status_code(status)
        outgoing = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        left = memoryview(body)
        with outgoing.write() as stream:
            while left:
                room = stream.check_write()
                if not room:
                    stream.subscribe().block()
                    continue
                stream.write(bytes(left[:room]))
                left = left[room:]
            stream.blocking_flush()
        OutgoingBody.finish(outgoing, None)


run(environ("GET", "/", [("host", b"127.0.0.1")], io.BytesIO()))
