"""Under wsgiref.validate, which complains of whatever a server does wrong; any complaint is an error here."""

import time
import warnings
from wsgiref.validate import WSGIWarning, validator

warnings.simplefilter("error", WSGIWarning)


@validator
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/echo":
        body = b""
        while piece := environ["wsgi.input"].read(1000):
            body += piece
    elif path == "/lines":
        body = b"|".join(environ["wsgi.input"])
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream()
    elif path == "/write":
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written\n")
        return [b"returned\n"]
    elif path == "/none":
        start_response("204 No Content", [])
        return []
    elif path == "/errors":
        environ["wsgi.errors"].write("a line for the log\n")
        environ["wsgi.errors"].writelines(["another ", "line\n"])
        environ["wsgi.errors"].flush()
        body = b"logged\n"
    else:
        body = b"valid\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def stream():
    for number in range(3):
        time.sleep(0.05)
        yield b"chunk %d\n" % number
