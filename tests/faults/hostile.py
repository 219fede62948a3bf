# ruff: noqa: E501 - the programs inside the strings
"""Programs that attack the machine, and what holds when one has run.

Each is the text of a Python program. It finds in the global ``host`` what to aim at (see `Target`),
and calls ``opened(what)`` when it got what it must not get. Those that take resources try to take
more than `LIMITS` give.
"""

import contextlib
import json
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from stillroom.sandbox import Job, Limits, Result, Sandbox

LIMITS = Limits(
    cpu_s=2.0, wall_s=4.0, memory_mib=256, processes=24, output_kib=64, file_mib=4, disk_mib=16,
    files=500, open_files=64, stack_mib=16,
)  # fmt: skip

_HEAD = """
import json, os, sys, time
host = json.loads(sys.stdin.readline())
def opened(what):
    print("OPENED", what, flush=True)
def trying(function, *arguments):
    try:
        return function(*arguments)
    except (Exception, MemoryError) as error:
        return None
"""

ATTACKS: dict[str, tuple[str, str]] = {
    "TCP to the host": ("network", """
import socket
if trying(socket.create_connection, ("127.0.0.1", host["port"]), 2): opened("a server of the host")
"""),
    "TCP to the internet": ("network", """
import socket
for address in ("1.1.1.1", "8.8.8.8", "169.254.169.254"):
    if trying(socket.create_connection, (address, 80), 1): opened(address)
"""),
    "DNS": ("network", """
import socket
if trying(socket.getaddrinfo, "example.org", 80): opened("a name was resolved")
"""),
    "UDP to the host": ("network", """
import socket
def send():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(host["token"].encode(), ("127.0.0.1", host["udp"]))
trying(send)
"""),
    "raw packets": ("network", """
import socket
for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW)):
    if trying(socket.socket, family, kind): opened("a raw socket")
"""),
    "hypervisor socket": ("network", """
import socket
if trying(socket.socket, 40, socket.SOCK_STREAM): opened("AF_VSOCK")
if trying(socket.socket, 38, socket.SOCK_SEQPACKET): opened("AF_ALG")
if trying(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW): opened("netlink")
"""),
    "unix socket of the host": ("network", """
import socket
for address in (host["unix"], "\\0" + host["abstract"]):
    def reach():
        s = socket.socket(socket.AF_UNIX); s.connect(address); return True
    if trying(reach): opened(address)
"""),
    "read a file of the host": ("files", """
if trying(lambda: open(host["readable"]).read()): opened("a file that all users may read")
"""),
    "read homes and settings": ("files", """
for path in ("/root", "/home", "/etc", "/var", "/opt", "/srv", "/boot", "/run", "/mnt", "/sys"):
    names = trying(os.listdir, path) or []
    for name in names:
        inner = os.path.join(path, name)
        if os.path.isfile(inner) and trying(lambda: open(inner, "rb").read(1)) and "ld.so" not in name:
            opened(inner)
for path in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/root/.ssh/id_rsa", "/root/.netrc"):
    if trying(lambda: open(path).read()): opened(path)
"""),
    "write to the host": ("files", """
for path in (host["folder"], "/", "/usr", "/usr/lib", "/etc", "/var/tmp", "/dev", sys.prefix):
    def write():
        with open(os.path.join(path, host["token"]), "w") as file: file.write("x")
        return True
    if trying(write): opened(path)
"""),
    "symbolic links": ("files", """
for target in (host["readable"], "/etc/passwd", "/proc/self/root/etc/passwd", "/../../etc/passwd"):
    trying(os.symlink, target, "link")
    if trying(lambda: open("link").read()): opened(target)
    trying(os.unlink, "link")
trying(os.symlink, host["folder"] + "/" + host["token"], "out")
trying(lambda: open("out", "w").write("x"))
"""),
    "hard links": ("files", """
for target in (host["readable"], "/usr/bin/env"):
    if trying(lambda: os.link(target, "hard") or True): opened(target)
"""),
    "open files of the starter": ("files", """
for fd in range(3, 64):
    if trying(os.fstat, fd): opened("descriptor %d" % fd)
"""),
    "/proc": ("processes", """
for pid in [host["pid"], os.getppid(), 1]:
    for name in ("environ", "cmdline", "maps", "mem", "root/etc/passwd", "cwd/setup.py"):
        if trying(lambda: open("/proc/%d/%s" % (pid, name), "rb").read(1)): opened("%d/%s" % (pid, name))
"""),
    "secrets in the environment": ("files", """
text = repr(dict(os.environ)) + (trying(lambda: open("/proc/self/environ").read()) or "")
if host["secret"] in text: opened("a secret")
"""),
    "signals to the starter": ("processes", """
import signal
for pid in (host["pid"], os.getppid()):
    if pid > 1 and trying(lambda: os.kill(pid, signal.SIGUSR1) or True) and pid == host["pid"]:
        opened("a signal to %d" % pid)
trying(os.kill, -1, signal.SIGUSR1)
"""),
    "kill everything": ("processes", """
trying(os.kill, -1, 9)
"""),
    "slow the starter": ("processes", """
import resource
if trying(lambda: os.setpriority(os.PRIO_PROCESS, host["pid"], 19) or True): opened("setpriority")
if trying(lambda: os.sched_setaffinity(host["pid"], {0}) or True): opened("sched_setaffinity")
if trying(lambda: resource.prlimit(host["pid"], resource.RLIMIT_CPU, (1, 1))): opened("prlimit")
if trying(lambda: os.nice(-5) or True): opened("nice")
"""),
    "trace a process": ("processes", """
import ctypes
libc = ctypes.CDLL(None)
if libc.ptrace(16, host["pid"], 0, 0) == 0: opened("ptrace attach")
if libc.ptrace(0, 0, 0, 0) == 0: opened("ptrace me")
buffer = ctypes.create_string_buffer(8)
if libc.syscall(310, host["pid"], 0, 0, 0, 0, 0) >= 0: opened("process_vm_readv")
"""),
    "fork bomb": ("processes", """
import signal
made = 0
while True:
    try:
        if os.fork() == 0:
            while True:
                trying(os.fork)
        made += 1
    except OSError:
        break
    if made > 200:
        opened("%d processes" % made)
        break
while True: pass
"""),
    "thread bomb": ("processes", """
import threading
threading.stack_size(65536)
made = 0
try:
    while made < 2000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        made += 1
except RuntimeError:
    pass
if made > 200: opened("%d threads" % made)
os._exit(0)
"""),
    "daemon": ("processes", """
if os.fork() == 0:
    trying(os.setsid)
    if os.fork() == 0:
        trying(os.setpgid, 0, 0)
        for fd in (0, 1, 2): os.close(fd)
        while True: time.sleep(60)
    os._exit(0)
os.wait()
"""),
    "daemon that holds the output": ("processes", """
if os.fork() == 0:
    trying(os.setsid)
    while True: time.sleep(60)
"""),
    "ignore signals": ("processes", """
import signal
for number in range(1, 65):
    trying(signal.signal, number, signal.SIG_IGN)
if os.fork() == 0:
    while True: time.sleep(60)
while True: time.sleep(60)
"""),
    "memory": ("resources", """
hoard = []
while True:
    try: hoard.append(bytearray(16 << 20))
    except MemoryError: time.sleep(0.01)
    if len(hoard) > 64: opened("%d MiB" % (16 * len(hoard))); break
"""),
    "memory of many": ("resources", """
for _ in range(16):
    if os.fork() == 0:
        hoard = bytearray(128 << 20)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""),
    "shared memory": ("resources", """
import mmap, ctypes
try:
    block = mmap.mmap(-1, 4 << 30)
    opened("4 GiB were mapped")
except (OSError, MemoryError): pass
libc = ctypes.CDLL(None)
if libc.shmget(0, 1 << 20, 0o1600) >= 0: opened("SysV memory, which outlives its maker")
if hasattr(os, "memfd_create") and trying(os.memfd_create, "x") is not None: opened("memfd")
size = 0
try:
    for n in range(100):
        with open("/dev/shm/%d" % n, "wb") as file:
            for _ in range(4): size += file.write(bytes(1 << 20))
except OSError: pass
if size > 40 << 20: opened("%d MiB in /dev/shm" % (size >> 20))
"""),
    "huge stack": ("resources", """
sys.setrecursionlimit(1 << 30)
def deep(n): return deep(n + 1) + 1
deep(0)
"""),
    "disk": ("resources", """
size = 0
try:
    for n in range(1000):
        with open("big%d" % n, "wb") as file:
            for _ in range(3): size += file.write(bytes(1 << 20))
except OSError: pass
if size > 64 << 20: opened("%d MiB" % (size >> 20))
time.sleep(1)
"""),
    "one huge file": ("resources", """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open("sparse", "wb") as file:
    if trying(file.truncate, 1 << 40): opened("a file of a terabyte")
    if trying(os.posix_fallocate, file.fileno(), 0, 1 << 30) is None and os.fstat(file.fileno()).st_blocks > 64 << 11:
        opened("a gigabyte was reserved")
"""),
    "names of files": ("resources", """
made = 0
try:
    while made < 50000:
        os.close(os.open("n%d" % made, os.O_CREAT | os.O_WRONLY)); made += 1
except OSError: pass
if made > 20000: opened("%d names" % made)
time.sleep(1)
"""),
    "deep folders": ("resources", """
try:
    for _ in range(5000):
        os.mkdir("d"); os.chdir("d")
except OSError: pass
trying(os.chmod, ".", 0)
"""),
    "open files": ("resources", """
held = []
try:
    while len(held) < 5000: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
if len(held) > 1000: opened("%d descriptors" % len(held))
"""),
    "endless output": ("resources", """
while True: os.write(1, b"x" * 65536)
"""),
    "endless complaints": ("resources", """
while True: os.write(2, b"x" * 65536)
"""),
    "huge last words": ("resources", """
sys.exit("x" * (64 << 20))
"""),
    "endless computing": ("resources", """
while True: pass
"""),
    "computing in turns": ("resources", """
# Each process stays below the limit of one process.
end = time.monotonic() + 30
while time.monotonic() < end:
    if os.fork() == 0:
        begin = time.process_time()
        while time.process_time() - begin < 0.3: pass
        os._exit(0)
    os.wait()
"""),
    "sleep": ("resources", """
time.sleep(3600)
"""),
    "stopped": ("resources", """
os.kill(os.getpid(), 19)
"""),
    "archive bomb": ("resources", """
import zlib
packed = zlib.compress(bytes(48 << 20))
hoard = []
while True: hoard.append(zlib.decompress(packed))
"""),
    "core dump": ("resources", """
import resource
trying(resource.setrlimit, resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
if resource.getrlimit(resource.RLIMIT_CORE)[0] != 0: opened("core dumps")
os.abort()
"""),
    "raise limits": ("kernel", """
import resource
for name in ("NPROC", "AS", "FSIZE", "NOFILE", "CPU"):
    limit = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(limit)[1]
    if trying(lambda: resource.setrlimit(limit, (hard + 1, hard + 1)) or True): opened(name)
"""),
    "mounts": ("kernel", """
import ctypes
libc = ctypes.CDLL(None)
if libc.mount(b"none", b".", b"tmpfs", 0, None) == 0: opened("mount")
if libc.mount(b"proc", b".", b"proc", 0, None) == 0: opened("mount proc")
if libc.umount2(b"/usr", 2) == 0: opened("umount")
if trying(lambda: os.chroot(".") or True): opened("chroot")
"""),
    "new namespaces": ("kernel", """
import ctypes
libc = ctypes.CDLL(None)
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000):
    if libc.unshare(flag) == 0: opened("unshare %x" % flag)
pid = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
if pid > 0: opened("clone into a user namespace")
"""),
    "become root": ("kernel", """
if os.geteuid() == 0: opened("is root already")
if trying(lambda: os.setuid(0) or True): opened("setuid")
for path in ("/usr/bin/su", "/usr/bin/passwd", "/bin/mount", "/usr/bin/sudo"):
    pass
import subprocess
said = trying(lambda: subprocess.run(["su", "-c", "id -u"], capture_output=True, text=True).stdout)
if said and said.strip() == "0": opened("su")
for line in (trying(lambda: open("/proc/self/status").read()) or "").splitlines():
    if line.startswith("CapEff") and int(line.split()[1], 16): opened("capabilities")
"""),
    "set-user-id file": ("kernel", """
def make():
    with open("shell", "wb") as file: file.write(open("/bin/sh", "rb").read())
    os.chmod("shell", 0o4755)
    import subprocess
    return subprocess.run(["./shell", "-p", "-c", "id -u"], capture_output=True, text=True).stdout.strip()
if trying(make) == "0": opened("root by a file")
"""),
    "device files": ("kernel", """
if trying(lambda: os.mknod("disk", 0o60666, os.makedev(8, 0)) or True): opened("a block device")
if trying(lambda: os.mknod("memory", 0o20666, os.makedev(1, 1)) or True): opened("a character device")
"""),
    "kernel keyring": ("kernel", """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(248, b"user", b"name", b"secret", 6, -3) >= 0: opened("add_key")
if libc.syscall(250, 0, -3, 0, 0, 0) >= 0: opened("keyctl")
"""),
    "calls of the kernel's edge": ("kernel", """
import ctypes
libc = ctypes.CDLL(None)
calls = {"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425,
         "open_by_handle_at": 304, "init_module": 175, "kexec_load": 246, "reboot": 169,
         "clock_settime": 227, "sethostname": 170, "personality": 135, "open_tree": 428,
         "x32 getpid": 0x40000027, "of tomorrow": 500}
for name, number in calls.items():
    if libc.syscall(number, 0, 0, 0, 0, 0, 0) >= 0: opened(name)
"""),
    "terminal": ("terminal", r"""
import fcntl, termios
for path in ("/dev/tty", "/dev/pts/0", "/dev/console", "/dev/ptmx"):
    if trying(os.open, path, os.O_RDWR) is not None: opened(path)
for fd in (0, 1, 2):
    if os.isatty(fd): opened("descriptor %d is a terminal" % fd)
    if trying(lambda: fcntl.ioctl(fd, termios.TIOCSTI, b"x") or True): opened("TIOCSTI")
sys.stderr.write("\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b31m\r\n")
sys.exit(1)
"""),
}  # fmt: skip
"""Name to kind and program."""


@dataclass(frozen=True)
class Target:
    """What attacks aim at, on this machine."""

    port: int
    udp: int
    unix: str
    abstract: str
    folder: str
    readable: str
    token: str
    secret: str
    pid: int


@dataclass
class Host:
    """The targets, and the ears that hear whether one was hit."""

    target: Target
    datagrams: socket.socket

    def hit(self) -> list[str]:
        """Say what arrived or was written."""
        found = [
            f"wrote {p.name}" for p in Path(self.target.folder).iterdir() if p.name != "readable"
        ]
        with contextlib.suppress(BlockingIOError):
            found.append(f"sent {self.datagrams.recv(100)!r}")
        return found


@contextlib.contextmanager
def host() -> Iterator[Host]:
    """Set up everything that attacks aim at."""
    secret = secrets.token_hex(8)
    os.environ["SECRET_KEY_OF_A_TEST"] = secret
    with (
        tempfile.TemporaryDirectory(prefix="stillroom-host-", dir="/var/tmp") as folder,
        tempfile.TemporaryDirectory(prefix="stillroom-host-", dir="/var/tmp") as other,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        for path in (folder, other):
            os.chmod(path, stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)  # noqa: PTH101
        readable = Path(folder, "readable")
        readable.write_text("of the host")
        readable.chmod(0o666)
        datagrams.bind(("127.0.0.1", 0))
        datagrams.setblocking(False)
        unix.bind(f"{other}/socket")
        os.chmod(f"{other}/socket", 0o777)  # noqa: PTH101
        unix.listen()
        abstract.bind(f"\0stillroom-{secret}")
        abstract.listen()
        target = Target(
            server.getsockname()[1], datagrams.getsockname()[1], f"{other}/socket",
            f"stillroom-{secret}", folder, str(readable), secrets.token_hex(8), secret, os.getpid(),
        )  # fmt: skip
        try:
            yield Host(target, datagrams)
        finally:
            os.environ.pop("SECRET_KEY_OF_A_TEST", None)


@dataclass
class Outcome:
    """What became of an attack.

    Attributes:
        result: What the sandbox says.
        escapes: What must not have happened, and did; empty if the sandbox held.
    """

    result: Result
    escapes: list[str]

    @property
    def ended(self) -> str:
        """How the program ended, in a word or two."""
        if self.result.failure:
            return "sandbox ended it"
        if self.result.hit:
            return f"stopped: {self.result.hit}"
        return "refused" if self.result.status == 0 else f"ended with {self.result.status}"


def attack(sandbox: Sandbox, name: str, host: Host) -> Outcome:
    """Run one attack, and look for what it did outside."""
    marker = f"stillroom-marker-{secrets.token_hex(8)}"
    _, program = ATTACKS[name]
    job = Job(
        (sandbox.python, "-I", "-S", "-c", _HEAD + program, marker),
        stdin=json.dumps(asdict(host.target)).encode() + b"\n",
        limits=LIMITS,
    )
    # A fork has the command line of its server, which stays.
    forks = getattr(sandbox, "forks", None)
    before = {} if forks is None else {forks.mark: set(processes(forks.mark))}
    with _heartbeat() as gaps:
        (result,) = sandbox.run([job])
    escapes = host.hit()
    escapes += [line for line in result.stdout.decode("utf-8", "replace").splitlines()
                if line.startswith("OPENED")]  # fmt: skip
    if len(result.stdout) > LIMITS.output_kib << 10 or len(result.stderr) > LIMITS.output_kib << 10:
        escapes.append("output beyond the limit")
    if result.memory_mib > 3 * LIMITS.memory_mib:
        escapes.append(f"{result.memory_mib:.0f} MiB of memory")
    if result.wall_s > 30:
        escapes.append(f"{result.wall_s:.0f} s on the clock")
    if max(gaps, default=0.0) > 5:
        escapes.append(f"the starter stood still for {max(gaps):.1f} s")
    escapes += left_behind(marker, before)
    return Outcome(result, escapes)


@contextlib.contextmanager
def _heartbeat() -> Iterator[list[float]]:
    """Note how long a thread of this process waits for its turn."""
    gaps: list[float] = []
    done = threading.Event()

    def beat() -> None:
        before = time.monotonic()
        while not done.wait(0.05):
            now = time.monotonic()
            gaps.append(now - before)
            before = now

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield gaps
    finally:
        done.set()
        thread.join()


def processes(mark: str) -> Iterator[int]:
    """Find processes by a word of their command line."""
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and mark.encode() in (path / "cmdline").read_bytes():
                yield int(path.name)


def zombies(parents: set[int]) -> Iterator[int]:
    """Find processes that ended, and that their parents have not taken note of."""
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if path.name.isdigit() and fields[0] == "Z" and int(fields[1]) in parents:
                yield int(path.name)


def left_behind(marker: str, before: dict[str, set[int]]) -> list[str]:
    """Find processes of an attack that live on, and zombies of whoever started them.

    Args:
        marker: A word of its command line.
        before: A word of the fork server's command line, and the processes that had it before.
    """
    deadline = time.monotonic() + 5
    parents = {os.getpid()}.union(*before.values())
    while True:
        living = set(processes(marker))
        for mark, servers in before.items():
            living |= set(processes(mark)) - servers
        found = [f"process {pid} lives on" for pid in living]
        found += [f"process {pid} is a zombie" for pid in zombies(parents)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
