"""The one exception of this package: ``LocalStackError``, a RuntimeError."""


class LocalStackError(RuntimeError):
    """Something the stack needs is missing, wrong or did not come up.

    The message names the thing, the value that was found and what is allowed or needed.
    """
