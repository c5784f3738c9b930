"""Every error airgap shows to a person, and the exit code that goes with it.

    AirgapError
    ├── UsageError            2   the command line asks for something that makes no sense
    ├── ManifestError         3   the manifest cannot be read or asks for the impossible
    ├── LockError             4   the lock is damaged, or belongs to another manifest
    ├── ResolveError          5   an upstream has no such version, tag or platform
    ├── FetchError            6   bytes could not be had from any source
    ├── BundleError          10   not a bundle we accept
    │   ├── DigestMismatch   11   content is not what its digest promises
    │   └── SignatureError   12   signature missing, wrong, or by a stranger
    ├── HostUnsuitable       20   the host cannot take this; nothing was changed
    │   └── StepFailed       21   a step failed; the host was put back
    │       └── PutBackFailed 22  a step failed and so did putting back; the host is changed
    └── Interrupted         130   stopped by the user; the host was put back

A message says what is wrong and where, `hint` says what to do next. Codes are an interface
(design.md); `tests/test_errors.py` holds this picture, the classes and the README together.
Anything that is not an AirgapError is a bug and leaves with 70.
"""

from __future__ import annotations

BUG = 70


class AirgapError(Exception):
    """What is wrong and where; `hint` says what the reader can do about it."""

    exit_code = BUG

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """`hint` is a sentence of its own, in the imperative."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AirgapError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class ManifestError(AirgapError):
    """The manifest cannot be read or asks for the impossible."""

    exit_code = 3


class LockError(AirgapError):
    """The lock is damaged, or belongs to another manifest."""

    exit_code = 4


class ResolveError(AirgapError):
    """An upstream has no such version, tag or platform."""

    exit_code = 5


class FetchError(AirgapError):
    """Bytes could not be had from any source."""

    exit_code = 6


class BundleError(AirgapError):
    """Not a bundle we accept."""

    exit_code = 10


class DigestMismatch(BundleError):
    """Content is not what its digest promises."""

    exit_code = 11


class SignatureError(BundleError):
    """The signature is missing, wrong, or by a stranger."""

    exit_code = 12


class HostUnsuitable(AirgapError):
    """The host cannot take this; nothing was changed."""

    exit_code = 20


class StepFailed(HostUnsuitable):
    """A step failed; the host was put back."""

    exit_code = 21


class PutBackFailed(StepFailed):
    """A step failed and putting back failed too; the host is changed."""

    exit_code = 22


class Interrupted(AirgapError):
    """Stopped by the user; what was begun was put back."""

    exit_code = 130
