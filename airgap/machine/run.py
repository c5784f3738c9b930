"""Starting programs of the host: argv only, a clean environment, bounded output, and an end to everything.

The only importer of subprocess. Algorithms take a `Run`; `Runner` is the real one. No shell ever reads what we pass, and what a
program leaves running when its time is over is killed with it.
"""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final, Protocol

from airgap.errors import AirgapError, HostUnsuitable

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/kube/bin"
OUTPUT_LIMIT: Final = 16 << 20
ERROR_TAIL: Final = 64 << 10
GRACE: Final = 2.0
"""Seconds for the output of a program that has ended: a daemon it left behind may hold the pipe open for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a program answered: `err` holds the last 64 KiB of its standard error."""

    argv: tuple[str, ...]
    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Standard output as text, without the blank lines around it."""
        return self.out.decode("utf-8", errors="replace").strip()


class RunError(AirgapError):
    """A program could not be started, failed, or did not end in time; `result` is what it had said by then."""

    exit_code = HostUnsuitable.exit_code

    def __init__(self, message: str, *, hint: str | None = None, result: Result | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


class Run(Protocol):
    """How algorithms start a program; see `Runner`."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,  # noqa: A002 - subprocess's own word
        timeout: float = 60,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        inherit: bool = False,
        check: bool = True,
    ) -> Result:
        """Run to the end and return what it answered; RunError otherwise."""


def printable(text: str | bytes, *, limit: int = 4000) -> str:
    """Foreign words made safe for a terminal: the last `limit` characters, control characters but newline shown as ?."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    safe = "".join(c if c == "\n" or c.isprintable() else " " if c == "\t" else "?" for c in text.replace("\r\n", "\n").strip())
    return safe if len(safe) <= limit else "…" + safe[-limit:]


def last_lines(text: bytes, count: int = 8) -> str:
    """The last lines of what a program said, safe for a terminal."""
    return "\n".join(printable(text).splitlines()[-count:])


class Runner:
    """Runs real programs. `environ` is what `inherit=True` passes on; the process's own if None."""

    def __init__(self, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ

    def __call__(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,  # noqa: A002 - subprocess's own word
        timeout: float = 60,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        inherit: bool = False,
        check: bool = True,
    ) -> Result:
        """What the program answered, after it ended; RunError if it cannot be started or has not ended after `timeout` seconds.

        With `check`, an exit code other than 0 is a RunError too. `user` is who it runs as, with that user's groups and home,
        from /; this needs root unless it is oneself. The environment is small and ours, `env` on top of it; with `inherit`
        it is the caller's own, for tools that have a configuration of their own (pip).
        """
        words = tuple(argv)
        account = _account(user)
        process = _start(words, account, self._environment(account, inherit=inherit) | dict(env or {}))
        out, err, over = _attend(process, input, timeout, words)
        result = Result(argv=words, code=process.returncode, out=out, err=err)
        if over:
            raise RunError(f"{_shown(words)}: {over}", result=result)
        if check and result.code:
            raise RunError(_failure(result), result=result)
        return result

    # Some collaborators hold a runner and call it by name.
    run = __call__

    def _environment(self, account: pwd.struct_passwd | None, *, inherit: bool) -> dict[str, str]:
        own = os.environ if self._environ is None else self._environ
        if inherit:
            return dict(own)
        # LD_*, PYTHON*, DOCKER_*, BUILDX_* and proxies of the caller would change what a host's tools do.
        clean = {"PATH": PATH, "LC_ALL": "C", "HOME": own.get("HOME", "/")}
        if account:
            clean |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
        return clean


def _account(user: str | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError as cause:
        raise RunError(f"the user {printable(user)} does not exist on this host") from cause


def _start(argv: tuple[str, ...], account: pwd.struct_passwd | None, env: dict[str, str]) -> subprocess.Popen[bytes]:
    other = account is not None and account.pw_uid != os.geteuid()
    if other and os.geteuid() != 0:
        raise RunError(f"{_shown(argv)}: only root can run it as {account.pw_name if account else ''}")
    try:
        return subprocess.Popen(  # noqa: S603 - argv of ours, no shell
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A session of its own: killed as a whole, and Ctrl-C on the terminal stays with us, who must put things back.
            start_new_session=True,
            cwd="/" if account else None,
            env=env,
            user=account.pw_uid if account and other else None,
            group=account.pw_gid if account and other else None,
            extra_groups=os.getgrouplist(account.pw_name, account.pw_gid) if account and other else None,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as cause:
        reason = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
        raise RunError(f"{_shown(argv)}: cannot be started: {printable(reason)}", hint=f"is {argv[0]} installed?") from cause


def _attend(
    process: subprocess.Popen[bytes], given: bytes | None, timeout: float, argv: tuple[str, ...]
) -> tuple[bytes, bytes, str]:
    """Feed and drain the program until it ends; the third value says why it was ended by us, if it was."""
    if process.stdin is None or process.stdout is None or process.stderr is None:  # never: all three were asked for
        raise RunError(f"{_shown(argv)}: started without pipes")
    out, err = _Drain(process.stdout, keep_first=OUTPUT_LIMIT), _Drain(process.stderr, keep_last=ERROR_TAIL)
    feeder = threading.Thread(target=_feed, args=(process.stdin, given), daemon=True, name=f"feed {argv[0]}")
    for thread in (feeder, out, err):
        thread.start()
    over = ""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        over = f"did not end within {timeout:g} seconds and was killed"
    finally:
        # Also on KeyboardInterrupt: nothing of ours goes on behind our back.
        if process.poll() is None:
            _kill(process)
    for thread in (out, err):
        thread.join(GRACE)
    if out.is_alive() or err.is_alive():
        # Something it left behind holds the pipes. Its own session is ours to end; one that left it is a daemon.
        _kill(process)
    if not over and out.full:
        over = f"said more than {OUTPUT_LIMIT} bytes"
    if over and err.data:
        over += f"\n{last_lines(bytes(err.data))}"
    return bytes(out.data), bytes(err.data), over


class _Drain(threading.Thread):
    """Reads a pipe to its end, so that the program never blocks, and keeps a bounded part of it."""

    def __init__(self, pipe: IO[bytes], *, keep_first: int = 0, keep_last: int = 0) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._first = keep_first
        self._last = keep_last
        self.data = bytearray()
        self.full = False

    def run(self) -> None:
        with self._pipe:
            while piece := os.read(self._pipe.fileno(), 1 << 16):
                if self._last:
                    self.data += piece
                    del self.data[: -self._last]
                elif len(self.data) + len(piece) <= self._first:
                    self.data += piece
                else:
                    self.full = True


def _feed(pipe: IO[bytes], data: bytes | None) -> None:
    try:
        with pipe:
            if data:
                pipe.write(data)
    except OSError:
        return  # it did not read to the end; its exit code says whether that is a failure


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        process.kill()
    process.wait()


def _failure(result: Result) -> str:
    how = f"ended with exit code {result.code}" if result.code > 0 else f"was killed by signal {-result.code}"
    said = last_lines(result.err) or last_lines(result.out)
    return f"{_shown(result.argv)} {how}" + (f"\n{said}" if said else "")


def _shown(argv: Sequence[str]) -> str:
    text = printable(shlex.join(argv).replace("\n", " "), limit=1 << 16)
    return text if len(text) <= 300 else text[:300] + "…"
