"""Writes to the log in every way there is, and tries to forge it."""

import logging
import sys
import warnings

print("printed while importing")
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
log = logging.getLogger("talkative")
VIEWS = {}


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    VIEWS[environ["PATH_INFO"]](environ)
    return [environ.get("HTTP_X_TAG", "ok").encode("latin-1")]


def view(function):
    VIEWS["/" + function.__name__.replace("_", "-")] = function
    return function


@view
def quiet(environ):
    pass


@view
def printing(environ):
    print("one printed line")
    print("two printed lines,\nthe second of them")


@view
def loggers(environ):
    log.info("an informed line")
    log.warning("a warned line")
    log.debug("a line nobody should see")
    try:
        raise KeyError("logged, not raised")
    except KeyError:
        log.exception("with a traceback")


@view
def errors(environ):
    environ["wsgi.errors"].write("a line for wsgi.errors\n")


@view
def standard_error(environ):
    sys.stderr.write("a line for stderr\n")


@view
def half_a_line(environ):
    sys.stdout.write("a line without its end")


@view
def pieces(environ):
    for piece in ("a line ", "in ", "pieces\n"):
        sys.stderr.write(piece)
        sys.stderr.flush()


@view
def long_line(environ):
    print("start-of-long-line " + "v" * 1_000_000 + " end-of-long-line")


@view
def forged(environ):
    """Terminal escapes, carriage returns and line ends of other kinds, to look like the server's own lines."""
    print("before\x1b[2K\x1b[1Aescape")
    print('before\r127.0.0.1 - - [01/Jan/2030:00:00:00 +0000] "GET /forged HTTP/1.1" 200 0')
    print("before\x85next\u2028separator\x0bvertical\x00nul\x7fdel\u202eoverride")


@view
def not_utf8(environ):
    sys.stdout.buffer.write(b"caf\xe9 in latin-1\n")
    sys.stdout.flush()


@view
def unicode(environ):
    print("caf\u00e9 \u3053\u3053\u308d \U0001f98b")


@view
def warning(environ):
    warnings.warn("a warning from the app")


@view
def flood(environ):
    for number in range(20_000):
        print(f"flood {number}")


@view
def raising(environ):
    raise ValueError("a traceback\nof two lines")
