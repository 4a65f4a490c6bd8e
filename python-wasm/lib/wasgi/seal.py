"""Makes a loaded app ready for a snapshot: its memory will be the start of many copies."""

import gc
import io
import os
import sys

import _wasgi
from wasgi import forks, secret

# Free memory that a copy begins with, in bytes. One that has to grow cannot go back to its snapshot's size.
HEADROOM = 8 << 20

_hooks = []


def after_restore(function):
    """Calls ``function()`` in each instance of the app, before its first request. Usable as a decorator.

    For what must not be the same in every copy and that wasgi cannot know of: an app's own random generators written
    in Python, connection identifiers, caches with a clock in them. ``random``, ``uuid`` and ``tempfile`` are taken
    care of. Secret variables are in ``os.environ`` by then.
    """
    _hooks.append(function)
    _wasgi.on_restore(restored)
    return function


def restored(secrets):
    """What makes a copy, new or rewound, an instance that may take a request."""
    if secrets:
        secret.hand_over(secrets)
    for hook in forks.handlers() + _hooks:
        hook()


def open_descriptors():
    """Descriptors that are open now."""
    found = set()
    for descriptor in range(256):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        found.add(descriptor)
    return found


_at_start = open_descriptors()


def seal(rewinds):
    """Returns True when memory may be copied, False if files are open: a copy would not have them.

    With ``rewinds`` the copies will go back to the snapshot after each request: it is laid out so that a request
    writes to few pages, at the price that nothing in it is ever freed.
    """
    # Modules that the first request would import otherwise, in every copy again.
    "ä".encode("idna")
    gc.collect()
    left_open = open_descriptors() - _at_start
    if left_open:
        print("open after import:", ", ".join(_names(left_open)), file=sys.stderr)
        return False
    _own_randomness()
    if forks.handlers():
        _wasgi.on_restore(restored)
    if rewinds:
        # A collection looks at, and writes to, every object that a request made; the rewind frees them for nothing.
        gc.set_threshold(100_000)
        _wasgi.settle(gc.get_objects())
    _make_room()
    gc.freeze()
    return True


def _names(descriptors):
    names = {}
    for thing in gc.get_objects():
        if isinstance(thing, io.FileIO) and not thing.closed and thing.fileno() in descriptors:
            names[thing.fileno()] = repr(thing.name)
    return [names.get(descriptor, f"descriptor {descriptor}") for descriptor in sorted(descriptors)]


def _make_room():
    # Freed at once, but libc keeps it: the copies find it there, and as zeros it takes no room in the image.
    try:
        bytearray(HEADROOM)
    except MemoryError:
        pass  # a small limits.memory; its copies are replaced more often


def _own_randomness():
    import random

    for thing in gc.get_objects():
        if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom):
            thing.gauss_next = None
            _wasgi.own_entropy(thing)
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        # Drawn from `random` when a uuid1 first needs it.
        uuid._node = None
        uuid._last_timestamp = None
