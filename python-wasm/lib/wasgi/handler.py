"""What requests need beside entry/request.c, which takes them through PEP 3333."""

import sys
import traceback

import _wasgi
from wasgi.input import Input


class FileWrapper:
    """PEP 3333, "Optional Platform-Specific File Handling"."""

    def __init__(self, filelike, blksize=65536):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration


def log_exception(error):
    """Writes what has left the app to the log."""
    try:
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
    _wasgi.serve(application, environ, Input, log_exception)
