"""The exceptions of this package.

RuntimeError
└── LocalStackError
    └── NotFoundError
"""


class LocalStackError(RuntimeError):
    """Something the stack needs is missing, wrong or did not come up.

    The message names the thing, the value that was found and what is allowed or needed.
    """


class NotFoundError(LocalStackError):
    """Flink knows nothing of what it was asked for."""
