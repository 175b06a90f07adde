"""The family of errors, each saying whose fault it is: user code, the caller, a limit, or upswell itself.

Public as `upswell.exception`. Messages say what happened, to which object, and what to do next.
"""

from __future__ import annotations


class Error(Exception):
    """Root of every error that upswell raises."""


# -- the caller's fault ---------------------------------------------------------------------------


class InvalidError(Error):
    """An argument, a declaration or the order of decorators is wrong; the message has the fix."""


class ParameterError(InvalidError, TypeError):
    """A parameter of a class is missing, unknown, or of the wrong type."""


class NotFoundError(Error):
    """The named app, function, class or call does not exist."""


class AlreadyExistsError(Error):
    """An object of that name exists already."""


class ConflictError(Error):
    """The request contradicts the present state of the object."""


class AuthError(Error):
    """The token is missing, wrong or expired."""


class PermissionDeniedError(Error):
    """The token is good but its scope does not cover the request."""


class ExecutionError(Error):
    """The operation is not possible in this process, such as `.local()` on a handle made by name."""


class SerializationError(Error):
    """An input, an output or a function can't be pickled; the message names which."""


class DeserializationError(Error):
    """A pickle can't be loaded on the other side, most often for a missing import."""


# -- a limit --------------------------------------------------------------------------------------


class ResourceExhaustedError(Error):
    """A limit of the server's configuration is reached; the message names it and what to do."""


class RequestSizeError(Error):
    """A value is larger than a Dict or a Queue takes; the message names both sizes."""


class TimeoutError(Error):
    """Base of the errors about time that is up."""


class FunctionTimeoutError(TimeoutError):
    """Every attempt of an input ran longer than the function's `timeout`."""


class OutputExpiredError(TimeoutError):
    """The outputs of the call are no longer kept."""


# -- user code, or the machine under it -----------------------------------------------------------


class RemoteError(Error):
    """An input failed without an exception of its own: cancelled, killed, or out of memory."""


class UserCodeException(Error):
    """Wraps an exception of user code where `wrap_returned_exceptions=True` asks for it.

    `exc` and `__cause__` are the user's own exception.
    """

    def __init__(self, exc: BaseException) -> None:
        super().__init__(exc)
        self.exc = exc
        self.__cause__ = exc


class InputCancellation(BaseException):
    """Raised inside synchronous user code whose input was cancelled. Not an `Exception`, so that it passes `except`."""


# -- ours -----------------------------------------------------------------------------------------


class ConnectionError(Error):
    """The server can't be reached, or the connection to it was lost."""


class StoreError(Error):
    """The server can't read or write what it keeps; the message names the file and what to do."""


class InternalFailure(Error):
    """A defect of upswell."""
