"""What PEP 3333 allows an app, and what it forbids, one path each. Run with one worker: some paths look back."""

import json
import sys
import time
from urllib.parse import parse_qs, unquote_to_bytes

PLAIN = [("Content-Type", "text/plain")]
CLOSED = []
KEPT = []
VIEWS = {}


def application(environ, start_response):
    view = VIEWS.get(environ["PATH_INFO"])
    if view is None:
        start_response("404 Not Found", PLAIN)
        return [b"no such path\n"]
    return view(environ, start_response)


def view(function):
    VIEWS["/" + function.__name__.replace("_", "-")] = function
    return function


def query(environ):
    return {key: values[-1] for key, values in parse_qs(environ["QUERY_STRING"], keep_blank_values=True).items()}


def raw(environ, key):
    """A query value as a latin-1 native string, undecoded, so that a test can name any byte."""
    for pair in environ["QUERY_STRING"].split("&"):
        name, _, value = pair.partition("=")
        if name == key:
            return unquote_to_bytes(value).decode("latin-1")


def say(start_response, text, status="200 OK"):
    start_response(status, PLAIN)
    return [text if isinstance(text, bytes) else text.encode()]


@view
def ok(environ, start_response):
    return say(start_response, "fine\n")


# environ


@view
def environ(environ, start_response):
    """The strings of environ as JSON, and the types of the rest. Latin-1 characters stay one character each."""
    shown = {key: value if type(value) is str else repr(type(value)) for key, value in environ.items()}
    for key in ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.input_terminated", "wsgi.version"):
        shown[key] = environ[key]
    shown["type"] = type(environ).__name__
    return say(start_response, json.dumps(shown))


# start_response() and write()


@view
def write(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"written ")
    write(b"")
    write(b"twice, ")
    return [b"then ", b"returned\n"]


@view
def write_str(environ, start_response):
    start_response("200 OK", PLAIN)("not bytes")
    return []


@view
def write_then_raise(environ, start_response):
    start_response("200 OK", PLAIN)(b"some of it\n")
    raise ValueError("after write")


@view
def no_start_response(environ, start_response):
    return [b"body without a head"]


@view
def no_start_response_empty(environ, start_response):
    return []


@view
def late_start_response(environ, start_response):
    """Allowed: the head may come as late as the iterable's first step."""

    def chunks():
        start_response("202 Later", PLAIN)
        yield b"late but right\n"

    return chunks()


@view
def too_late_start_response(environ, start_response):
    def chunks():
        yield b"too early"
        start_response("200 OK", PLAIN)

    return chunks()


@view
def twice(environ, start_response):
    start_response("200 OK", PLAIN)
    start_response("201 Created", PLAIN)
    return [b"never"]


@view
def twice_with_exc_info(environ, start_response):
    """Allowed: an error page replaces a head that has not gone out."""
    start_response("200 OK", [("X-First", "yes")])
    try:
        raise ValueError("found out in time")
    except ValueError:
        start_response("503 Replaced", PLAIN, sys.exc_info())
    return [b"the error page\n"]


@view
def exc_info_first(environ, start_response):
    try:
        raise ValueError("at once")
    except ValueError:
        start_response("500 Mine", PLAIN, sys.exc_info())
    return [b"my own error page\n"]


@view
def exc_info_too_late(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"first chunk\n"
    try:
        raise ValueError("found out too late")
    except ValueError:
        start_response("500 Too Late", PLAIN, sys.exc_info())
    yield b"must not be sent"


@view
def lazy_head(environ, start_response):
    """The head waits for the first non-empty chunk, so it can still be replaced after an empty one."""
    start_response("200 OK", PLAIN)
    yield b""
    try:
        raise ValueError("in time")
    except ValueError:
        start_response("500 Replaced", PLAIN, sys.exc_info())
    yield b"replaced\n"


@view
def status(environ, start_response):
    return say(start_response, "body\n", raw(environ, "s"))


@view
def status_bytes(environ, start_response):
    return say(start_response, "body\n", b"200 OK")


@view
def header(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), (raw(environ, "name"), raw(environ, "value"))])
    return [b"body\n"]


@view
def header_not_latin1(environ, start_response):
    start_response("200 OK", [("X-Name", "\u20ac")])
    return [b"body\n"]


@view
def header_bytes(environ, start_response):
    start_response("200 OK", [(b"X-Name", b"value")])
    return [b"body\n"]


@view
def header_number(environ, start_response):
    start_response("200 OK", [("X-Number", 5)])
    return [b"body\n"]


@view
def headers_none(environ, start_response):
    start_response("200 OK", None)
    return [b"body\n"]


@view
def headers_triple(environ, start_response):
    start_response("200 OK", [("X-A", "b", "c")])
    return [b"body\n"]


@view
def cookies(environ, start_response):
    start_response("200 OK", PLAIN + [("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Latin", "caf\xe9")])
    return [b"two\n"]


@view
def own_server_and_date(environ, start_response):
    start_response("200 OK", PLAIN + [("Server", "mine"), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")])
    return [b"mine\n"]


# Reply bodies


@view
def length(environ, start_response):
    """Claims `claim` bytes and sends `send`, in `pieces`."""
    asked = query(environ)
    start_response("200 OK", PLAIN + [("Content-Length", asked["claim"])])
    left = int(asked["send"])
    size = max(1, left // int(asked.get("pieces", "1")))

    def chunks():
        nonlocal left
        while left > 0:
            yield b"z" * min(size, left)
            left -= size

    return chunks()


@view
def two_lengths(environ, start_response):
    start_response("200 OK", PLAIN + [("Content-Length", "3"), ("Content-Length", "4")])
    return [b"abcd"]


@view
def one_chunk(environ, start_response):
    return say(start_response, "one chunk\n")


@view
def two_chunks(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"two ", b"chunks\n"]


@view
def empty(environ, start_response):
    start_response("200 OK", PLAIN)
    return []


@view
def bodyless(environ, start_response):
    """A status that has no body, with one all the same."""
    start_response(raw(environ, "s"), [("X-Kept", "yes")])
    return [b"this must not be sent"]


@view
def str_body(environ, start_response):
    start_response("200 OK", PLAIN)
    return ["not bytes"]


@view
def int_body(environ, start_response):
    start_response("200 OK", PLAIN)
    return [5]


@view
def str_chunk_midway(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"first chunk\n"
    yield "not bytes"


@view
def whole_str(environ, start_response):
    start_response("200 OK", PLAIN)
    return "a string is an iterable, of strings"


@view
def whole_bytes(environ, start_response):
    """An iterable of integers, not of bytes."""
    start_response("200 OK", PLAIN)
    return b"abc"


@view
def none(environ, start_response):
    start_response("200 OK", PLAIN)


@view
def number(environ, start_response):
    start_response("200 OK", PLAIN)
    return 42


@view
def raise_at_once(environ, start_response):
    raise ValueError("before start_response")


@view
def raise_after_head(environ, start_response):
    start_response("200 OK", PLAIN)
    raise ValueError("after start_response, before a byte")


@view
def raise_midway(environ, start_response):
    start_response("200 OK", PLAIN)
    yield b"first chunk\n"
    raise ValueError("midway")


@view
def stream(environ, start_response):
    """`n` chunks, `pause` seconds apart."""
    asked = query(environ)
    start_response("200 OK", PLAIN)

    def chunks():
        for number in range(int(asked["n"])):
            if number:
                time.sleep(float(asked["pause"]))
            yield b"chunk %d\n" % number

    return chunks()


@view
def big(environ, start_response):
    """`mib` MiB in which each 8 bytes count on, so that what is missing or twice shows."""
    mib = int(query(environ)["mib"])
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (b"".join(b"%08x" % (part * 131072 + n) for n in range(131072)) for part in range(mib))


@view
def big_written(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "application/octet-stream")])
    for part in range(int(query(environ)["mib"])):
        write(b"%08x" % part * 131072)
    return []


@view
def file(environ, start_response):
    start_response("200 OK", PLAIN)
    source = open("long.txt", "rb")
    watched = Watched(source, "file")
    return environ["wsgi.file_wrapper"](watched, int(query(environ).get("block", "8192")))


class Watched:
    def __init__(self, source, name):
        self.read = source.read
        self.source = source
        self.name = name

    def close(self):
        self.source.close()
        CLOSED.append(self.name)


# close()


class Closing:
    """An iterable that tells when it is closed, under the name the client gave."""

    def __init__(self, name, chunks):
        self.name = name
        self.chunks = iter(chunks)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.chunks)

    def close(self):
        CLOSED.append(self.name)


@view
def closing(environ, start_response):
    """`what` happens before close(): nothing, an exception, a long reply, bad chunks."""
    asked = query(environ)

    def chunks(what):
        if what == "raise-first":
            raise ValueError("at the first chunk")
        yield b"chunk\n"
        if what == "raise":
            raise ValueError("at the second chunk")
        if what == "str":
            yield "not bytes"
        if what == "long":
            while True:
                yield b"l" * 65536
        if what == "slow":
            while True:
                time.sleep(0.05)
                yield b"slow\n"
        if what == "late-head":
            start_response("200 OK", PLAIN)

    if asked["what"] != "no-head":
        start_response("200 OK", PLAIN)
    return Closing(asked["name"], chunks(asked["what"]))


@view
def close_raises(environ, start_response):
    class Raising(Closing):
        def close(self):
            super().close()
            raise ValueError("in close")

    start_response("200 OK", PLAIN)
    return Raising("close-raises", [b"whole ", b"reply\n"])


@view
def closed(environ, start_response):
    """The names under which close() has been called, each call once."""
    return say(start_response, json.dumps(CLOSED))


# wsgi.input


@view
def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body]


@view
def echo_streaming(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return iter(lambda: environ["wsgi.input"].read(8192), b"")


@view
def input(environ, start_response):
    """Reads the body in the way `how` names; replies with the pieces as JSON."""
    how = query(environ)["how"]
    stream = environ["wsgi.input"]
    if how == "read":
        pieces = [stream.read(), stream.read(), stream.read(5)]
    elif how == "read-none":
        pieces = [stream.read(None)]
    elif how == "read-minus":
        pieces = [stream.read(-1)]
    elif how == "read-zero":
        pieces = [stream.read(0), stream.read(3), stream.read(0)]
    elif how == "read-3":
        pieces = list(iter(lambda: stream.read(3), b"")) + [stream.read(3)]
    elif how == "read-too-much":
        pieces = [stream.read(1 << 24), stream.read(1 << 24)]
    elif how == "readline":
        pieces = list(iter(stream.readline, b"")) + [stream.readline()]
    elif how == "readline-4":
        pieces = list(iter(lambda: stream.readline(4), b""))
    elif how == "readlines":
        pieces = stream.readlines()
    elif how == "readlines-hint":
        pieces = [*stream.readlines(5), b"|", *stream.readlines()]
    elif how == "iterate":
        pieces = list(stream)
    elif how == "mixed":
        pieces = [stream.read(2), stream.readline(), *stream, stream.read()]
    elif how == "nothing":
        pieces = []
    return say(start_response, json.dumps([piece.decode("latin-1") for piece in pieces]))


@view
def sum(environ, start_response):
    """The body's length and a checksum, read in pieces."""
    import zlib

    total, crc = 0, 0
    while piece := environ["wsgi.input"].read(100_000):
        total += len(piece)
        crc = zlib.crc32(piece, crc)
    return say(start_response, f"{total} {crc:08x}\n")


@view
def dialogue(environ, start_response):
    """Answers each line of the body as it comes."""
    start_response("200 OK", PLAIN)
    return (b"got " + line for line in environ["wsgi.input"])


@view
def keep_input(environ, start_response):
    KEPT.append(environ["wsgi.input"])
    return say(start_response, "kept\n")


@view
def read_kept(environ, start_response):
    """Reads the input of an earlier request: none of this one's body may come out of it."""
    try:
        found = KEPT[-1].read()
    except (OSError, ValueError) as error:
        found = type(error).__name__.encode()
    return say(start_response, b"%r %d\n" % (found, len(environ["wsgi.input"].read())))


@view
def half_read(environ, start_response):
    return say(start_response, environ["wsgi.input"].read(4))


# wsgi.errors


@view
def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("to wsgi.errors\n")
    stream.writelines(["one ", "line\n", "second line\n"])
    stream.flush()
    return say(start_response, "logged\n")
