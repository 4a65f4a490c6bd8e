"""PEP 3333's server side: one request, from its environ to the last byte of the reply.

Method names are those of wsgiref.handlers. Bytes, headers and their checks are the host's (the _wasgi module).
"""

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


class Handler:
    """One request. ``run`` takes it through; the other methods are what PEP 3333 gives to the app."""

    __slots__ = ("application", "started", "head_sent", "peer_gone")

    def __init__(self, application):
        self.application = application
        self.started = False
        self.head_sent = False
        self.peer_gone = False

    def run(self, environ):
        """Returns True when the app has done its part, False when an exception left it (which is then in the log)."""
        self.setup_environ(environ)
        body = environ["wsgi.input"]
        result = None
        try:
            try:
                result = self.application(environ, self.start_response)
                self.finish_response(result)
            finally:
                # "close() must be called upon completion of the request, whether it completed normally or not."
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except BaseException as error:
            if self.peer_gone and isinstance(error, BrokenPipeError):
                return True
            self.log_exception(error)
            return False
        finally:
            body.end()
        return True

    def setup_environ(self, environ):
        environ["wsgi.input"] = Input()
        if environ.get("REQUEST_SCHEME") == "https" or environ.get("HTTPS", "off") in ("on", "1"):
            environ["wsgi.url_scheme"] = "https"

    def start_response(self, status, headers, exc_info=None):
        if exc_info is not None:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no reference cycle through the traceback
        elif self.started:
            raise AssertionError("start_response() was called a second time without exc_info")
        _wasgi.reply_head(status, headers)
        self.started = True
        return self.write

    def write(self, data):
        """The callable that start_response() returns."""
        self.send(data, False)

    def finish_response(self, result):
        # "If the iterable returned by the application has a len() of 1, the server can work out the Content-Length."
        if type(result) in (list, tuple) and len(result) == 1 and not self.head_sent:
            self.send(result[0], True)
            return
        for data in result:
            self.send(data, False)
        self.send(b"", True)

    def send(self, data, last):
        # "start_response() must be called before the iterable yields its first body bytestring."
        if not self.started and (data or last):
            raise AssertionError("the app sent data without calling start_response() first")
        try:
            _wasgi.reply_body(data, last)
        except BrokenPipeError:
            self.peer_gone = True
            raise
        if data:
            self.head_sent = True

    def log_exception(self, error):
        try:
            # Only the innermost frames: a recursion with its limit lifted leaves millions.
            traceback.print_exception(error, limit=-1000)
        except BaseException as second:
            # Out of memory, most likely; say what can still be said.
            sys.stderr.write(f"{type(error).__name__} (and {type(second).__name__} while logging it)\n")


def serve(application):
    """Makes ``application`` answer requests from now on."""

    def handle(environ):
        return Handler(application).run(environ)

    _wasgi.serve(
        handle,
        {
            "SCRIPT_NAME": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
        },
    )
