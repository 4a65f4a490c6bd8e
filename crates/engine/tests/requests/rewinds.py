import _struct
import atexit
import builtins
import codecs
import collections
import contextvars
import copyreg
import decimal
import functools
import gc
import json
import logging
import os
import re
import signal
import sqlite3
import struct
import sys
import tempfile
import threading
import time
import types
import warnings
import weakref

count = 0
table = {"kept": [1, 2, 3]}
hoard = []
lock = threading.Lock()
variable = contextvars.ContextVar("variable", default="default")
database = sqlite3.connect(":memory:")
database.execute("create table t (x)")
ordered = collections.OrderedDict(a=1)


class Base:
    pass


@functools.lru_cache(maxsize=64)
def cached(key):
    return object()


@functools.singledispatch
def dispatched(value):
    return "object"


def generator():
    for number in range(1000):
        yield number


running = generator()
next(running)
deeds = {}


def deed(function):
    deeds[function.__name__] = function
    return function


@deed
def globals_(size):
    global count
    count += 1 + size
    table[size] = "x" * size


@deed
def removes(size):
    del table["kept"]
    ordered.clear()
    sys.modules.pop("copyreg")


@deed
def patch(size):
    json.canary = size
    json.dumps = lambda *_: "patched"
    builtins.canary = size
    builtins.len = lambda it, length=len: length(it)


@deed
def lru(size):
    for key in range(size):
        cached(key)


@deed
def regex(size):
    for key in range(size % 50 + 1):
        re.compile(f"(a|b){{{key}}}[{size}]+")


@deed
def structs(size):
    for key in range(size % 120 + 1):
        struct.unpack(f"<{key + 1}B", bytes(key + 1))


@deed
def dispatch(size):
    @dispatched.register
    def _(value: int):
        return "int"

    dispatched(1)


@deed
def classes(size):
    for key in range(size % 40 + 1):
        kind = type(f"Kind{key}", (Base,), {"x": key, "method": lambda self: self.x})
        hoard.append(kind())
        hoard[-1].method()
    Base.attribute = size


@deed
def interned(size):
    hoard.append([sys.intern(f"interned-{key}") for key in range(size)])


@deed
def decimals(size):
    decimal.getcontext().prec = 5 + size % 20
    hoard.append(decimal.Decimal(1) / 7)


@deed
def dates(size):
    hoard.append(time.strftime("%A %B %d", time.gmtime(size * 86400)))
    hoard.append(time.strptime("1 2 2026", "%d %m %Y"))


@deed
def codec(size):
    codecs.register(lambda name: codecs.lookup("utf-8") if name == "canary" else None)
    codecs.register_error("canary", codecs.ignore_errors)
    b"x".decode("canary")
    "x".encode("cp1252")


@deed
def filters(size):
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", f"x{size}")


@deed
def collector(size):
    gc.set_threshold(10 + size, 5, 5)
    gc.disable()
    gc.unfreeze()
    hoard.append(hoard)
    gc.collect()


@deed
def recursion_limit(size):
    sys.setrecursionlimit(300 + size)
    sys.set_int_max_str_digits(1000 + size)


@deed
def handlers(size):
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)


@deed
def environment(size):
    os.environ["CANARY"] = "x" * size
    os.environ.pop("GIVEN")


@deed
def folder(size):
    os.makedirs(f"/tmp/a/{size}")
    os.chdir("/tmp/a")


@deed
def files(size):
    for key in range(size % 20 + 1):
        file = open(f"/tmp/file{key}", "w+")
        file.write("x" * size)
        hoard.append(file)
    hoard.append(open("/app/app.py"))


@deed
def temporary(size):
    hoard.append(tempfile.NamedTemporaryFile(delete=False))
    hoard.append(tempfile.TemporaryFile())
    hoard[-1].write(bytes(size))


@deed
def closes(size):
    for descriptor in range(size % 30):
        try:
            os.close(descriptor)
        except OSError:
            pass


@deed
def threads(size):
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        pass


@deed
def allocates(size):
    for key in range(size % 30):
        block = bytearray(1 + (size * 7919 * (key + 1)) % 3_000_000)
        if key % 3 == 0:
            hoard.append(block[: 1 + key * 1001])
    hoard.append([object() for _ in range(size * 10)])
    del hoard[len(hoard) // 2 : -1]


@deed
def imports(size):
    name = ["csv", "colorsys", "html.parser", "difflib", "fractions", "statistics", "xml.etree.ElementTree"][size % 7]
    __import__(name)


@deed
def sql(size):
    database.execute("insert into t values (?)", (size,))
    other = sqlite3.connect("/tmp/left.sqlite")
    other.execute("create table if not exists t (x)")
    hoard.append(other)


@deed
def hooks(size):
    atexit.register(print)
    sys.excepthook = print
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)
    copyreg.pickle(types.FunctionType, print)


@deed
def logs(size):
    logging.getLogger(f"canary.{size}").addHandler(logging.StreamHandler())
    logging.disable(logging.CRITICAL)


@deed
def context(size):
    variable.set(size)
    lock.acquire(blocking=False)
    next(running)


@deed
def weak(size):
    thing = Base()
    hoard.append((thing, weakref.finalize(thing, print), weakref.ref(Base)))


@deed
def nested(size):
    text = "[" * 100_000
    try:
        json.loads(text)
    except RecursionError:
        pass


@deed
def recurse(size):
    def deeper(level):
        return deeper(level + 1) + 1

    deeper(0)


deeds["raise"] = lambda size: 1 / 0


def shape(value):
    """Enough to tell two states apart, and the same for two copies."""
    return repr(value).replace("\n", " ")


def canary():
    """What is in each place that the deeds know, by name; nothing of it may be made by looking."""
    yield "allocator", sys.getallocatedblocks()
    yield "address", id([])
    yield "globals", (count, table, ordered, len(hoard))
    yield "modules", (len(sys.modules), "copyreg" in sys.modules, "csv" in sys.modules)
    yield "patches", (hasattr(json, "canary"), json.dumps.__name__, hasattr(builtins, "canary"), len.__name__)
    yield "lru", cached.cache_info()
    yield "regex", (len(re._cache), len(re._cache2))
    yield "struct", [len(it) for it in gc.get_referents(_struct) if type(it) is dict]
    yield "singledispatch", len(dispatched.registry)
    yield "classes", (len(Base.__subclasses__()), hasattr(Base, "attribute"), weakref.getweakrefcount(Base))
    yield "decimal", decimal.getcontext()
    yield "warnings", warnings.filters
    yield "collector", (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count() > 0, gc.get_count()[2])
    yield "limits", (sys.getrecursionlimit(), sys.get_int_max_str_digits())
    yield "signals", (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGXCPU).__class__)
    yield "environ", dict(os.environ)
    yield "folder", os.getcwd()
    yield "tmp", sorted(os.listdir("/tmp"))
    yield "descriptors", sorted(open_descriptors())
    yield "sqlite", database.execute("select count(*) from t").fetchone()
    yield "hooks", (sys.excepthook.__name__, sys.gettrace(), sys.getprofile(), atexit._ncallbacks())
    yield "pickle", sorted(map(str, copyreg.dispatch_table))
    yield "logging", (sorted(logging.root.manager.loggerDict), logging.root.manager.disable)
    yield "context", (variable.get(), lock.locked(), running.gi_frame.f_locals["number"])
    try:
        codecs.lookup_error("canary")
        yield "codecs", "registered"
    except LookupError:
        yield "codecs", None


def open_descriptors():
    for descriptor in range(64):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        yield descriptor


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/canary":
        reply = "\n".join(f"{name} {shape(value)}" for name, value in canary())
    elif path == "/names":
        reply = " ".join(deeds)
    else:
        for part in path[1:].split("/"):
            name, size = part.split(":")
            if name == "loop":
                while True:
                    pass
            deeds[name](int(size))
        reply = "done"
    start_response("200 OK", [])
    return [reply.encode()]
