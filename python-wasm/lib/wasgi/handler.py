"""What requests need beside entry/request.c, which takes them through PEP 3333."""

import io
import os
import stat
import sys
import traceback

import _wasgi
from wasgi.input import Input


# These give their file's bytes as they are. A gzip.GzipFile has a fileno() as well.
PLAIN_FILES = (io.BufferedReader, io.FileIO, io.BufferedRandom)


class FileWrapper:
    """PEP 3333, "Optional Platform-Specific File Handling"."""

    def __init__(self, filelike, blksize=65536):
        self.filelike = filelike
        self.blksize = blksize
        # Werkzeug looks for the last three to send a part of the file without reading what is before it.
        for name in ("close", "seekable", "seek", "tell"):
            if hasattr(filelike, name):
                setattr(self, name, getattr(filelike, name))

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration

    def place(self):
        """Device, inode, offset and length of what is left of an ordinary file, for the host to send it; else None."""
        file = self.filelike
        if type(file) not in PLAIN_FILES:
            return None
        try:
            file.flush()
            offset = file.tell()
            status = os.fstat(file.fileno())
        except (OSError, ValueError):
            # Closed, or no file of the system's: reading it says which.
            return None
        length = status.st_size - offset
        if not stat.S_ISREG(status.st_mode) or length <= 0:
            return None
        return status.st_dev, status.st_ino, offset, length


# Where no app's code is.
LIBRARY = os.path.dirname(os.__file__) + "/"


def name(error):
    """What tells a failure from others: its kind, and the app's line that raised it or led to it. What the library does
    there is the same for all: a time limit is raised by a signal handler of ours."""
    place, at = "", error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        if not place or not code.co_filename.startswith(LIBRARY):
            place = f" at {code.co_filename}:{at.tb_lineno} in {code.co_qualname}"
        at = at.tb_next
    return (type(error).__qualname__ + place).encode(errors="replace").decode()


def log_exception(error):
    """Writes what has left the app to the log, unless the same was written a short while ago: then it is counted."""
    try:
        # One without a traceback is ours, about a reply: a line, which says all.
        if error.__traceback__ is not None and not _wasgi.is_news(name(error)):
            return
        # Only the innermost frames: a recursion with its limit lifted leaves millions.
        traceback.print_exception(error, limit=-1000)
    except BaseException as second:
        # Out of memory, most likely; say what can still be said.
        sys.stderr.write(f"{type(error).__name__} (and {type(second).__name__} while logging it)\n")


def serve(application):
    """Makes ``application`` answer requests from now on."""
    environ = {
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }
    _wasgi.serve(application, environ, Input, log_exception, FileWrapper)
