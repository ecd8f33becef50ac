"""What the sandbox's process gives up once everything is loaded, as far as the kernel it runs on can hold it.

Each measure is tried by itself. One that this kernel or machine does not have leaves the others as they are, and the
process reports those that hold (``doctor`` shows them).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from typing import Any, Final

MEMORY_BYTES: Final = 512 * 1024 * 1024

# The measures. ``SandboxProcess.confinement`` has those that hold.
LIMITS: Final = (
    "limits"  # memory; no new descriptors, no growing files, no core; for users other than root no processes
)
UNDUMPABLE: Final = "not dumpable"  # other processes of its user can neither read its memory nor trace it
NO_NEW_PRIVILEGES: Final = "no new privileges"
LANDLOCK: Final = "landlock"  # no file or folder; from Linux 6.7 on no TCP, from 6.12 on no signals to others
SECCOMP: Final = "seccomp"  # only the system calls below: no files, sockets, processes, signals or tracing
MEASURES: Final = (LIMITS, UNDUMPABLE, NO_NEW_PRIVILEGES, LANDLOCK, SECCOMP)

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION: Final = 1

# Machine -> number of the system call seccomp, architecture in audit records, calls that the process may make: read,
# write, close, fstat, poll, lseek, mmap, mprotect, munmap, brk, rt_sigaction, rt_sigprocmask, rt_sigreturn, readv,
# writev, sched_yield, mremap, madvise, nanosleep, getpid, exit, gettimeofday, getrusage, times, sigaltstack, gettid,
# futex, restart_syscall, clock_gettime, clock_getres, clock_nanosleep, exit_group, set_robust_list, getcpu, getrandom,
# membarrier and rseq.
_SYSTEM_CALLS: Final = {
    "x86_64": (
        317,
        0xC000003E,
        (0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 24, 25, 28, 35, 39, 60, 96, 98, 100, 131, 186, 202, 219,
         228, 229, 230, 231, 273, 309, 318, 324, 334),
    ),
    "aarch64": (
        277,
        0xC00000B7,
        (63, 64, 57, 80, 73, 62, 222, 226, 215, 214, 134, 135, 139, 65, 66, 124, 216, 233, 101, 172, 93, 169, 165, 153,
         132, 178, 98, 128, 113, 114, 115, 94, 99, 168, 278, 283, 293),
    ),
}  # fmt: skip
_EPERM: Final = 1
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_RET_KILL_PROCESS: Final = 0x80000000


def confine() -> list[str]:
    """Give up what is not needed any more; returns the measures that hold."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    holds = {
        NO_NEW_PRIVILEGES: libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
        LANDLOCK: _landlock(libc),  # before the limits: it needs a descriptor
        LIMITS: _limits(),
        UNDUMPABLE: libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0,
        SECCOMP: _seccomp(libc),  # last: none of the above is among its calls
    }
    return [measure for measure in MEASURES if holds[measure]]


def _limits() -> bool:
    for name, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),  # standard input, output and error: nothing more can be opened
    ):
        resource.setrlimit(name, (limit, limit))
    return True


def _landlock(libc: Any) -> bool:
    """Handle every access that this kernel's Landlock knows, and allow none."""
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    files = (1 << (13 + min(version - 1, 2) + (version >= 5))) - 1
    rules = struct.pack("=QQQ", files, 0b11, 0b11)[: 8 if version < 4 else 16 if version < 6 else 24]
    descriptor = libc.syscall(_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
    if descriptor < 0:
        return False
    try:
        return bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, descriptor, 0) == 0)
    finally:
        os.close(descriptor)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _seccomp(libc: Any) -> bool:
    """Refuse every system call but those in the list, in all threads."""
    numbers = _SYSTEM_CALLS.get(platform.machine())
    if numbers is None:
        return False
    seccomp, architecture, allowed = numbers
    instructions = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 1, 0, architecture),  # skip the next one if it is this
        (0x06, 0, 0, _RET_KILL_PROCESS),
        (0x20, 0, 0, 0),  # load the call's number
        *((0x15, len(allowed) - place, 0, number) for place, number in enumerate(allowed)),
        (0x06, 0, 0, _RET_ERRNO | _EPERM),
        (0x06, 0, 0, _RET_ALLOW),
    ]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    set_filter, all_threads = 1, 1
    return bool(libc.syscall(seccomp, set_filter, all_threads, ctypes.byref(program)) == 0)
