"""wsgi.input: the request's body, read from the host as the app asks for it."""

import io

import _wasgi


class _Body(io.RawIOBase):
    """The body as the host gives it: as much as there is, waiting for at least one byte."""

    def readable(self):
        return True

    def readinto(self, buffer):
        return _wasgi.body_readinto(buffer)


class Input:
    """PEP 3333, "Input and Error Streams". Ends where the body ends, whatever CONTENT_LENGTH says, so
    ``wsgi.input_terminated`` holds.

    The buffer is made when it is first needed: most requests have no body.
    """

    __slots__ = ("_reader",)

    def _open(self):
        try:
            return self._reader
        except AttributeError:
            self._reader = io.BufferedReader(_Body(), 65536)
            return self._reader

    def read(self, size=-1):
        return self._open().read(-1 if size is None else size)

    def readline(self, size=-1):
        return self._open().readline(-1 if size is None else size)

    def readlines(self, hint=-1):
        return self._open().readlines(-1 if hint is None else hint)

    def __iter__(self):
        return iter(self._open())

    def end(self):
        """The request is over: whoever kept this object reads nothing, least of all the next request's body."""
        self._reader = io.BytesIO()
