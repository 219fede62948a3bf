"""The inside of the fork server: waits, and forks once for each program.

Needs Python 3.9 and nothing else; nothing of Stillroom is there. The process that loops never reads
a request: the fork does, so that nothing of one program is in the memory of the next. The fork goes
through the guard before it compiles the first untrusted byte. What follows runs in the innermost
process, which has no descriptor but 0, 1 and 2.

Arguments: the guard's module; a descriptor with a byte for each fork that is wanted, answered with
a descriptor of the fork; one with the requests, in the form of `marshal`, each with the program's
descriptors, answered by the fork that has read it; a name by which the processes of this server
can be told.
"""

import _imp
import _signal
import _socket
import gc
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec

# What a Python gives every program.
_FIRST = {n: value for n, value in globals().items() if n[:2] == "__"}
_FIRST["__doc__"] = None
_PRELOADED = ("_json", "_posixsubprocess", "binascii", "select", "time")


def enter():
    """Fork for each byte; return the program in the fork, when it is inside."""
    guard = _imp.create_dynamic(ModuleSpec("_guard", None, origin=sys.argv[1]))
    _imp.exec_dynamic(guard)
    for name in _PRELOADED:
        try:
            __import__(name)
        except ImportError:
            pass
    control, requests = (_socket.socket(fileno=int(number)) for number in sys.argv[2:4])
    _signal.signal(_signal.SIGCHLD, reap)
    server = os.getpid()
    os.close(os.pidfd_open(server))  # where that is forbidden, there is no server
    gc.collect()
    gc.freeze()
    requests.send(b"ready")
    while True:
        if not control.recv(1):
            os._exit(0)
        # A fork that ends at once keeps its number until there is a descriptor of it.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
        pid = os.fork()
        if pid:
            one = os.pidfd_open(pid)
            sent = one.to_bytes(4, sys.byteorder)
            control.sendmsg([b"forked"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, sent)])
            os.close(one)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGCHLD])
        if not pid:
            break
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    os.setsid()
    raw, sent, _, _ = requests.recvmsg(1 << 18, 1 << 12)
    arguments, environment, argv, source = marshal.loads(raw)
    requests.send(b"read")
    for number in (control.detach(), requests.detach()):
        os.close(number)
    # They came as the lowest free numbers, in order: none is overwritten before it is used.
    received = b"".join(data for _, _, data in sent)
    for number in range(len(received) // 4):
        got = int.from_bytes(received[4 * number : 4 * number + 4], sys.byteorder)
        os.dup2(got, number)
    guard.enter([*arguments, f"parent={server}"])
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = argv
    return source


def reap(*_):
    """Forget the forks that ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def fresh():
    """Return the names of a new ``__main__``."""
    main = sys.modules["__main__"] = type(sys)("__main__")
    main.__dict__.update(_FIRST)
    return main.__dict__


def run(source):
    """Execute the program as ``python -c`` does."""
    try:
        exec(compile(source, "<string>", "exec", dont_inherit=True), fresh())
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        inner = error.__traceback__ and error.__traceback__.tb_next  # without this frame
        sys.excepthook(type(error), error.with_traceback(inner), inner)
        sys.exit(1)


run(enter())
