"""Runs into every limit there is, one path each."""

import itertools
import os
import sys
import time

# What views import is loaded by now: some come right after one that has opened all the files it may.
for module in ("select", "signal", "socket", "subprocess", "threading"):
    __import__(module)

WORKER = None
LEAK = []


def application(environ, start_response):
    environ["start"] = start_response
    view = VIEWS.get(environ["PATH_INFO"], missing)
    result = view(environ)
    if isinstance(result, bytes):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(result)))])
        return [result]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return result


VIEWS = {}


def view(function):
    VIEWS["/" + function.__name__.replace("_", "-")] = function
    return function


def missing(environ):
    raise LookupError(environ["PATH_INFO"])


@view
def ok(environ):
    return b"fine\n"


@view
def worker(environ):
    """Tells one instance from the next. Drawn at the first request, since all share what was there at the import."""
    global WORKER
    if WORKER is None:
        WORKER = os.urandom(8).hex()
    return WORKER.encode()


# Time: code that never ends, in Python, in C, and while waiting.


@view
def loop(environ):
    while True:
        pass


class EmptyPieces(map):
    """Pieces without end and without bytes, made in C: no bytecode runs between them."""

    def close(self):
        print("closed the empty pieces", file=sys.stderr)


@view
def empty_pieces(environ):
    return EmptyPieces(bytes, itertools.repeat(0))


@view
def loop_cleaning_up(environ):
    try:
        while True:
            pass
    finally:
        print("cleaned up after the loop")


@view
def loop_catching_exceptions(environ):
    while True:
        try:
            while True:
                pass
        except Exception:
            pass


@view
def loop_stubborn(environ):
    while True:
        try:
            while True:
                pass
        except BaseException:
            print("I will not be stopped")


@view
def loop_without_handler(environ):
    import signal

    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass


@view
def loop_caught(environ):
    try:
        while True:
            pass
    except BaseException:
        return b"as if nothing had happened"


@view
def loop_in_generator(environ):
    yield b"first\n"
    while True:
        pass


@view
def loop_before_first_chunk(environ):
    while True:
        if environ is None:
            yield b"never\n"


class LoopInClose:
    def __iter__(self):
        return iter([b"all of it\n"])

    def close(self):
        while True:
            pass


@view
def loop_in_close(environ):
    return LoopInClose()


@view
def sleep(environ):
    time.sleep(1e6)
    return b"awake"


@view
def sleep_cleaning_up(environ):
    try:
        time.sleep(1e6)
    finally:
        print("cleaned up after the sleep")


@view
def sleep_stubborn(environ):
    while True:
        try:
            time.sleep(1e6)
        except BaseException:
            print("still sleeping")


@view
def select_forever(environ):
    import select

    select.select([], [], [], 1e6)
    return b"awake"


@view
def regex(environ):
    import re

    re.match("(a+)+$", "a" * 40 + "b")
    return b"matched"


@view
def big_power(environ):
    return str(10 ** (10**9) % 7).encode()


@view
def read_body(environ):
    return b"%d" % len(environ["wsgi.input"].read())


@view
def reply_for_ever(environ):
    while True:
        yield b"x" * 65536


@view
def finish_in_time(environ):
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    return b"in time\n"


# Memory.


@view
def big_bytes(environ):
    return b"x" * 10**10


@view
def one_gigabyte(environ):
    return bytes(2**30)


@view
def growing_list(environ):
    grown = []
    while True:
        grown.append([None] * 1000)


@view
def growing_dict(environ):
    grown = {}
    while True:
        grown[len(grown)] = str(len(grown)) * 10


@view
def growing_string(environ):
    grown = "x"
    while True:
        grown += grown


@view
def growing_for_good(environ):
    """What it took stays taken: the list outlives the request."""
    while True:
        LEAK.append(bytearray(1 << 16))


@view
def growing_while_catching(environ):
    held = []
    while True:
        try:
            while True:
                held.append(bytearray(1 << 20))
        except MemoryError:
            pass


@view
def reply_of_a_gigabyte(environ):
    """Small in the guest, large outside: the host must not hold what a slow client does not take."""
    chunk = b"y" * (1 << 20)
    for _ in range(1024):
        yield chunk


@view
def headers_of_megabytes(environ):
    environ["start"]("200 OK", [(f"X-{n}", "v" * 1000) for n in range(20_000)])
    return b"never"


@view
def many_files_held(environ):
    """Opens as many as the query string says, or what it can; says how much, and holds it for a moment."""
    held = []
    try:
        while len(held) < int(environ["QUERY_STRING"]):
            held.append(open(__file__))
        yield f"{len(held)} files\n".encode()
    except OSError as error:
        yield f"{type(error).__name__} after {len(held)} files\n".encode()
    time.sleep(0.5)


# Recursion, in Python and in the C code under it. Each must be a RecursionError (or work), never a crash.


def recursion(function):
    def run(environ):
        try:
            function()
        except RecursionError as error:
            return f"RecursionError: {error}\n".encode()
        except MemoryError as error:
            return f"MemoryError: {error}\n".encode()
        return b"done\n"

    VIEWS["/" + function.__name__.replace("_", "-")] = run
    return function


def deeper():
    return deeper() + 1


def nested(depth, kind=list):
    value = kind()
    for _ in range(depth):
        value = kind([value]) if kind is not dict else {"k": value}
    return value


@view
def recursion_uncaught(environ):
    deeper()


@recursion
def recursion_python():
    deeper()


@recursion
def recursion_unlimited():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**9)
    try:
        deeper()
    finally:
        sys.setrecursionlimit(before)


@recursion
def recursion_method():
    class Node:
        def __getattr__(self, name):
            return getattr(self, name + "x")

    Node().a


@recursion
def recursion_unlimited_repr():
    class Node:
        def __repr__(self):
            return repr([self])

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**9)
    try:
        repr(Node())
    finally:
        sys.setrecursionlimit(before)


@recursion
def recursion_unlimited_sort():
    class Node:
        def __lt__(self, other):
            return sorted([Node(), Node()]) is None

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**9)
    try:
        sorted([Node(), Node()])
    finally:
        sys.setrecursionlimit(before)


@recursion
def recursion_repr():
    repr(nested(100_000))


@recursion
def recursion_repr_dict():
    repr(nested(100_000, dict))


@recursion
def recursion_equal():
    nested(100_000) == nested(100_000)


@recursion
def recursion_free():
    # Freeing what is nested deeply recurses in C unless the interpreter takes care.
    value = nested(1_000_000)
    del value


@recursion
def recursion_json_loads():
    import json

    json.loads("[" * 100_000)


@recursion
def recursion_json_loads_objects():
    import json

    json.loads('{"k":' * 100_000)


@recursion
def recursion_json_dumps():
    import json

    json.dumps(nested(100_000))


@recursion
def recursion_pickle():
    import pickle

    pickle.dumps(nested(100_000))


@recursion
def recursion_pickle_python():
    import io
    import pickle

    pickle._Pickler(io.BytesIO()).dump(nested(100_000))


@recursion
def recursion_deepcopy():
    import copy

    copy.deepcopy(nested(100_000))


@recursion
def recursion_marshal():
    import marshal

    try:
        marshal.dumps(nested(100_000))
    except ValueError as error:
        raise RecursionError(error) from None


def compiled(source):
    # The compiler's own words for it are MemoryError or SyntaxError "too many nested parentheses".
    try:
        compile(source, "deep", "exec")
    except SyntaxError as error:
        raise RecursionError(error.msg) from None


@recursion
def recursion_compile_parentheses():
    compiled("(" * 100_000 + ")" * 100_000)


@recursion
def recursion_compile_minus():
    compiled("-" * 100_000 + "1")


@recursion
def recursion_compile_sum():
    compiled("1" + "+1" * 100_000)


@recursion
def recursion_compile_attributes():
    compiled("a" + ".b" * 100_000)


@recursion
def recursion_compile_not():
    compiled("not " * 100_000 + "1")


@recursion
def recursion_compile_calls():
    compiled("f" + "()" * 100_000)


@recursion
def recursion_compile_lambdas():
    compiled("lambda: " * 5_000 + "1")


@recursion
def recursion_compile_strings():
    compiled("f'{" * 140 + "1" + "}'" * 140)


@recursion
def recursion_ast():
    import ast

    node = ast.Constant(1)
    for _ in range(100_000):
        node = ast.UnaryOp(ast.USub(), node)
        node.lineno = node.col_offset = node.operand.lineno = node.operand.col_offset = 1
    compile(ast.Expression(node), "deep", "eval")


@recursion
def recursion_literal_eval():
    import ast

    try:
        ast.literal_eval("[" * 100_000)
    except SyntaxError as error:
        raise RecursionError(error.msg) from None


@recursion
def recursion_regex():
    import re

    re.compile("(" * 20_000 + ")" * 20_000)


@recursion
def recursion_regex_match():
    import re

    re.match("(?:x|(?:x|y)*)*$", "xy" * 100_000)


@recursion
def recursion_isinstance():
    isinstance(1, nested(100_000, tuple))


@recursion
def recursion_xml():
    import xml.etree.ElementTree as etree

    try:
        tree = etree.fromstring("<a>" * 100_000 + "</a>" * 100_000)
    except etree.ParseError as error:
        raise RecursionError(error) from None
    etree.tostring(tree)


def chain(inner):
    yield from inner


def chained(depth):
    value = iter(())
    for _ in range(depth):
        value = chain(value)
    return value


@recursion
def recursion_generators():
    list(chained(20_000))


@recursion
def recursion_partial():
    import functools

    value = print
    for _ in range(100_000):
        value = functools.partial(functools.partial, value)
    value()


@recursion
def recursion_exception_chain():
    import traceback

    error = None
    for _ in range(100_000):
        following = ValueError("one of many")
        following.__cause__ = error
        error = following
    traceback.format_exception(error)


@view
def recursion_exception_chain_raised(environ):
    error = None
    for _ in range(100_000):
        following = ValueError("one of many")
        following.__cause__ = error
        error = following
    raise error


# CPython itself has no guard on these; natively they overflow the C stack.


@recursion
def unguarded_map():
    value = iter([1])
    for _ in range(300_000):
        value = map(abs, value)
    list(value)


@recursion
def unguarded_hash():
    hash(nested(300_000, tuple))


@recursion
def unguarded_free():
    chained(300_000)


# Ways out of the interpreter.


@view
def os_exit(environ):
    os._exit(1)


@view
def os_exit_zero(environ):
    os._exit(0)


@view
def os_abort(environ):
    os.abort()


@view
def sys_exit(environ):
    sys.exit()


@view
def sys_exit_in_generator(environ):
    yield b"first\n"
    sys.exit("enough")


@view
def keyboard_interrupt(environ):
    raise KeyboardInterrupt


@view
def exception(environ):
    raise ValueError("the view does not work")


@view
def kill_self(environ):
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return b"alive"


@view
def null_pointer(environ):
    import ctypes

    return ctypes.string_at(0)


# What the sandbox does not have.


@view
def thread(environ):
    import threading

    threading.Thread(target=print).start()
    return b"started"


@view
def subprocess(environ):
    import subprocess

    return subprocess.check_output(["id"])


@view
def connect(environ):
    import socket

    socket.create_connection(("127.0.0.1", 80), timeout=5)
    return b"connected"
