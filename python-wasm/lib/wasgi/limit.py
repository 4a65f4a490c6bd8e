"""What ends a request before its time, as Python sees it: an exception where the app is, by the road of a signal."""

import signal

import _wasgi


class TimeLimit(BaseException):
    """The request has run into ``limits.time``.

    Not an Exception, so that ``except Exception`` does not swallow it. The client already has its 504; ``finally``
    blocks run, and the instance is stopped if it goes on for longer than the grace.
    """


class Killed(BaseException):
    """The operator has ended the request, with ``wasgi kill``. What holds of TimeLimit holds of it, but for the status:
    the client has a 503."""


class CpuLimit(TimeLimit):
    """The request has run into ``limits.cpu``: a TimeLimit of which waits are not a part."""


# By what interrupt_reason() tells.
_REASONS = {
    0: (TimeLimit, "the request took longer than limits.time"),
    1: (Killed, "the operator has ended the request"),
    2: (CpuLimit, "the request ran for longer than limits.cpu"),
}


def _raise(number, frame):
    kind, words = _REASONS[_wasgi.interrupt_reason()]
    raise kind(words)


def install():
    """Lets SIGXCPU, which the host raises, end what is running."""
    signal.signal(signal.SIGXCPU, _raise)
