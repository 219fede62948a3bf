/* Run one command under limits, and say how it ended.
 *
 *     guard KEY=VALUE ... -- COMMAND ARGUMENT ...
 *
 * The command is untrusted; the guard is not. The guard sets limits, gives up every privilege in
 * the child, waits for the command, kills whatever the command left behind, and writes lines to the
 * descriptor `report`:
 *
 *     pid N                            the command's process group, as the guard sees it
 *     failed WHAT: WHY                 the command was not started; nothing untrusted ran
 *     ended STATUS CPU_US RSS_KIB      wait status; CPU time of all its processes; the largest one
 *
 * Keys: report=FD uid=N gid=N cwd=PATH sockets=0|1 landlock=0|1 read=PATH write=PATH file=FD:PATH
 * private=0|1 loopback=0|1 parent=PID scratch=PATH:BYTES:INODES, and the limits cpu= as= fsize=
 * nofile= nproc= stack=.
 *
 * `guard_module.c` makes a Python module of this file: a fork of the fork server goes through
 * `enter` as a command does, and then goes on itself instead of executing another program.
 *
 * Covered: system calls (seccomp, a list of what is denied; calls newer than this file are absent),
 * files (Landlock, if asked), namespaces (if asked; inside bubblewrap they are there already),
 * signals to strangers (Landlock from Linux 6.12 on, another user, or a PID namespace).
 * Not covered: bugs of the kernel, and timing.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 64

static struct {
    int report, sockets, landlock, private, loopback, parent;
    long uid, gid;
    const char *cwd, *scratch;
    const char *reads[MANY], *writes[MANY], *files[MANY];
    int n_reads, n_writes, n_files;
} asked = {.report = -1, .uid = -1, .gid = -1};

static struct { const char *key; int resource; long long value; } limits[] = {
    {"cpu", RLIMIT_CPU, -1},       {"as", RLIMIT_AS, -1},       {"fsize", RLIMIT_FSIZE, -1},
    {"nofile", RLIMIT_NOFILE, -1}, {"nproc", RLIMIT_NPROC, -1}, {"stack", RLIMIT_STACK, -1},
    {"core", RLIMIT_CORE, 0},      {"memlock", RLIMIT_MEMLOCK, 0}, {"msgqueue", RLIMIT_MSGQUEUE, 0},
    {"nice", RLIMIT_NICE, 0},      {"rtprio", RLIMIT_RTPRIO, 0},
};
#define N_LIMITS (sizeof limits / sizeof *limits)

static volatile pid_t command; /* also its process group */

static void fail(const char *what) {
    dprintf(asked.report, "failed %s: %s\n", what, strerror(errno));
    _exit(127);
}

/* --- system calls --------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "guard knows the system calls of x86_64 and aarch64"
#endif

/* Calls above this number are newer than the list below, and are absent inside. */
#define NEWEST 462
#define GONE SECCOMP_RET_ERRNO | ENOSYS
#define DENIED SECCOMP_RET_ERRNO | EPERM
#define CALL(name) __NR_##name

static const int denied[] = {
    /* other processes */
    CALL(ptrace), CALL(process_vm_readv), CALL(process_vm_writev), CALL(kcmp), CALL(setns),
    CALL(unshare), 438 /* pidfd_getfd */, 440 /* process_madvise */, 448 /* process_mrelease */,
    CALL(migrate_pages), CALL(move_pages), CALL(mbind), CALL(set_mempolicy),
    /* The guard kills the command's process group, so nothing may leave it. */
    CALL(setsid), CALL(setpgid),
    /* file systems */
    CALL(mount), CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(swapon), CALL(swapoff),
    428 /* open_tree */, 429 /* move_mount */, 430 /* fsopen */, 431 /* fsconfig */,
    432 /* fsmount */, 433 /* fspick */, 442 /* mount_setattr */, CALL(quotactl),
    443 /* quotactl_fd */, CALL(name_to_handle_at), CALL(open_by_handle_at), CALL(fanotify_init),
    CALL(fanotify_mark), CALL(acct),
    /* the kernel and the machine */
    CALL(bpf), CALL(perf_event_open), CALL(userfaultfd), CALL(keyctl), CALL(add_key),
    CALL(request_key), CALL(init_module), CALL(finit_module), CALL(delete_module),
    CALL(kexec_load), CALL(reboot), CALL(sethostname), CALL(setdomainname), CALL(settimeofday),
    CALL(clock_settime), CALL(adjtimex), CALL(clock_adjtime), CALL(syslog), CALL(vhangup),
    CALL(personality), CALL(lookup_dcookie), CALL(seccomp),
#ifdef __NR_kexec_file_load
    CALL(kexec_file_load),
#endif
#ifdef __x86_64__
    CALL(iopl), CALL(ioperm), CALL(modify_ldt), CALL(uselib), CALL(ustat), CALL(sysfs),
    CALL(_sysctl), CALL(create_module), CALL(nfsservctl),
#endif
};

static const int gone[] = {
    425, 426, 427,             /* io_uring: it does what the filter cannot see */
    435,                       /* clone3: its flags are in memory; libraries fall back to clone */
    CALL(memfd_create), 447,   /* memory that is no process's */
    CALL(shmget), CALL(shmat), CALL(shmctl), CALL(shmdt), CALL(semget), CALL(semop), CALL(semctl),
    CALL(semtimedop), CALL(msgget), CALL(msgsnd), CALL(msgrcv), CALL(msgctl), CALL(mq_open),
};

/* Calls that are fine on oneself: the argument that names a process must be 0. */
static const struct { int call, argument; } on_self[] = {
    {CALL(prlimit64), 0},          {CALL(setpriority), 1},       {CALL(ioprio_set), 1},
    {CALL(sched_setparam), 0},     {CALL(sched_setscheduler), 0}, {CALL(sched_setattr), 0},
    {CALL(sched_setaffinity), 0},
};

static struct sock_filter program[1024];
static int length;

static void emit(uint16_t code, uint32_t k, uint8_t yes, uint8_t no) {
    program[length++] = (struct sock_filter){code, yes, no, k};
}
static void load(size_t offset) { emit(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0); }
static void answer(uint32_t action) { emit(BPF_RET | BPF_K, action, 0, 0); }
static void equal(uint32_t k, uint8_t yes, uint8_t no) { emit(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no); }
static size_t low(int argument) {
    return offsetof(struct seccomp_data, args) + 8 * (size_t)argument;
}
static void when(int call, uint32_t action) {
    equal((uint32_t)call, 0, 1);
    answer(action);
}

static void filter_system_calls(void) {
    load(offsetof(struct seccomp_data, arch));
    equal(ARCH, 1, 0);
    answer(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(struct seccomp_data, nr));
    emit(BPF_JMP | BPF_JGT | BPF_K, NEWEST, 0, 1); /* the x32 calls of x86_64 among them */
    answer(GONE);
    for (size_t i = 0; i < sizeof denied / sizeof *denied; i++) when(denied[i], DENIED);
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) when(gone[i], GONE);
    for (size_t i = 0; i < sizeof on_self / sizeof *on_self; i++) {
        equal((uint32_t)on_self[i].call, 0, 4);
        load(low(on_self[i].argument));
        equal(0, 1, 0);
        answer(DENIED);
        answer(SECCOMP_RET_ALLOW);
    }
    equal(CALL(clone), 0, 4);
    load(low(0));
    emit(BPF_JMP | BPF_JSET | BPF_K,
         CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
             CLONE_NEWCGROUP, 0, 1);
    answer(DENIED);
    answer(SECCOMP_RET_ALLOW);
    equal(CALL(ioctl), 0, 5);
    load(low(1));
    equal(0x5412 /* TIOCSTI */, 1, 0);
    equal(0x541C /* TIOCLINUX */, 0, 1);
    answer(DENIED);
    answer(SECCOMP_RET_ALLOW);
    if (asked.sockets) { /* the network of the sandbox is its own loopback */
        equal(CALL(socket), 0, 6);
        load(low(0));
        equal(1 /* AF_UNIX */, 3, 0);
        equal(2 /* AF_INET */, 2, 0);
        equal(10 /* AF_INET6 */, 1, 0);
        answer(DENIED);
        answer(SECCOMP_RET_ALLOW);
    } else {
        when(CALL(socket), DENIED);
    }
    equal(CALL(socketpair), 0, 3);
    load(low(0));
    equal(1, 1, 0);
    answer(DENIED);
    answer(SECCOMP_RET_ALLOW);
    struct sock_fprog all = {(unsigned short)length, program};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &all)) fail("seccomp");
}

/* --- files ---------------------------------------------------------------------------------- */

/* Of linux/landlock.h; the header of the build machine may be older than the kernel. */
struct landlock_ruleset { uint64_t files, network, scoped; };
struct landlock_path { uint64_t access; int32_t fd; } __attribute__((packed));
enum {
    LANDLOCK_EXECUTE = 1 << 0, LANDLOCK_WRITE_FILE = 1 << 1, LANDLOCK_READ_FILE = 1 << 2,
    LANDLOCK_READ_DIR = 1 << 3, LANDLOCK_MAKE_CHAR = 1 << 6, LANDLOCK_MAKE_BLOCK = 1 << 11,
    LANDLOCK_TRUNCATE = 1 << 14, LANDLOCK_IOCTL = 1 << 15,
};

static void allow(int rules, const char *path, uint64_t access) {
    struct stat info;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return;
    if (fd < 0 || fstat(fd, &info)) fail(path);
    if (!S_ISDIR(info.st_mode))
        access &= LANDLOCK_EXECUTE | LANDLOCK_WRITE_FILE | LANDLOCK_READ_FILE | LANDLOCK_TRUNCATE |
                  LANDLOCK_IOCTL;
    struct landlock_path rule = {access, fd};
    if (syscall(445, rules, 1 /* path beneath */, &rule, 0)) fail(path);
    close(fd);
}

static void restrict_files(void) {
    long abi = syscall(444, NULL, 0, 1 /* version */);
    if (abi < 1) fail("landlock");
    int rights = abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;
    struct landlock_ruleset wanted = {
        (1ull << rights) - 1,
        abi >= 4 ? 3 : 0, /* TCP: bind, connect */
        abi >= 6 ? 3 : 0, /* abstract sockets, signals */
    };
    size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
    int rules = (int)syscall(444, &wanted, size, 0);
    if (rules < 0) fail("landlock");
    uint64_t all = wanted.files;
    for (int i = 0; i < asked.n_reads; i++)
        allow(rules, asked.reads[i], LANDLOCK_EXECUTE | LANDLOCK_READ_FILE | LANDLOCK_READ_DIR);
    for (int i = 0; i < asked.n_writes; i++)
        allow(rules, asked.writes[i],
              all & ~(uint64_t)(LANDLOCK_MAKE_CHAR | LANDLOCK_MAKE_BLOCK | LANDLOCK_IOCTL));
    if (syscall(446, rules, 0)) fail("landlock");
    close(rules);
}

static void copy_files(void) {
    static char buffer[1 << 16];
    for (int i = 0; i < asked.n_files; i++) {
        char *path;
        int from = (int)strtol(asked.files[i], &path, 10);
        int to = open(path + 1, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0755);
        if (to < 0) fail(path + 1);
        for (ssize_t got; (got = read(from, buffer, sizeof buffer)) != 0;)
            if (got < 0 || write(to, buffer, (size_t)got) != got) fail(path + 1);
        close(to);
        close(from);
    }
}

/* --- namespaces ----------------------------------------------------------------------------- */

static int put(const char *path, const char *format, long one, long other) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int bad = fd < 0 || dprintf(fd, format, one, other) < 0;
    if (fd >= 0) close(fd);
    return bad;
}

static void enter_namespaces(void) {
    int kinds = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
    long uid = geteuid(), gid = getegid();
    if (unshare(kinds)) { /* without the right to: in a user namespace, where all have it */
        if (unshare(kinds | CLONE_NEWUSER)) fail("unshare");
        if (put("/proc/self/setgroups", "deny", 0, 0) ||
            put("/proc/self/uid_map", "%ld %ld 1", uid, uid) ||
            put("/proc/self/gid_map", "%ld %ld 1", gid, gid))
            fail("uid_map");
    }
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) fail("mount");
}

static void raise_loopback(void) {
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &loopback)) fail("loopback");
    close(fd);
}

/* A file system in memory, so that neither bytes nor names of files outlive or outgrow it. */
static void mount_scratch(void) {
    char path[4096], options[128];
    long long bytes, inodes;
    if (sscanf(asked.scratch, "%4095[^:]:%lld:%lld", path, &bytes, &inodes) != 3) {
        errno = EINVAL;
        fail("scratch");
    }
    snprintf(options, sizeof options, "size=%lld,nr_inodes=%lld,mode=1777", bytes, inodes);
    if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)) fail(path);
}

/* --- the command ---------------------------------------------------------------------------- */

static void give_up_privileges(void) {
    if (asked.uid >= 0) {
        if (setgroups(0, NULL)) fail("setgroups");
        if (setresgid((gid_t)asked.gid, (gid_t)asked.gid, (gid_t)asked.gid)) fail("setresgid");
        if (setresuid((uid_t)asked.uid, (uid_t)asked.uid, (uid_t)asked.uid)) fail("setresuid");
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("no_new_privs");
    for (unsigned long capability = 0; capability < 64; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* fails where there is none to drop */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct { uint32_t version; int pid; } header = {0x20080522, 0};
    uint32_t none[6] = {0};
    if (syscall(SYS_capset, &header, none)) fail("capset");
}

static void give_up_everything(void) {
    sigset_t all;
    sigemptyset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    signal(SIGTERM, SIG_DFL);
    if (setpgid(0, 0)) fail("setpgid");
    if (asked.cwd && chdir(asked.cwd)) fail(asked.cwd);
    for (size_t i = 0; i < N_LIMITS; i++)
        if (limits[i].value >= 0) {
            struct rlimit both = {(rlim_t)limits[i].value, (rlim_t)limits[i].value};
            struct rlimit now;
            /* A hard limit that is lower already cannot be raised, and need not be. */
            if (!getrlimit(limits[i].resource, &now) && now.rlim_max < both.rlim_max)
                both.rlim_cur = both.rlim_max = now.rlim_max;
            if (setrlimit(limits[i].resource, &both)) fail(limits[i].key);
        }
    umask(022);
    syscall(436 /* close_range */, 3, ~0u, 4 /* on exec */);
    for (int fd = 3; fd < 256; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC); /* before Linux 5.11 */
    give_up_privileges();
    if (asked.landlock) restrict_files();
    filter_system_calls();
}

static void stop(int signal_number) {
    (void)signal_number;
    if (command > 0) kill(-command, SIGKILL);
    else _exit(128 + SIGTERM);
}

/* Return in a process that has nothing any more; wait for it, kill what is left of it, and report. */
static void supervise(void) {
    int status = 0, its_status = 0;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before);
    signal(SIGTERM, stop);
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) {
        give_up_everything();
        return;
    }
    setpgid(pid, pid); /* by both, so that the group is there whoever is first */
    command = pid;
    sigprocmask(SIG_SETMASK, &before, NULL);
    dprintf(asked.report, "pid %d\n", (int)pid);
    for (pid_t found; (found = waitpid(-1, &status, 0)) != pid;) {
        if (found < 0 && errno != EINTR) fail("wait");
    }
    its_status = status;
    if (getpid() == 1) kill(-1, SIGKILL);
    kill(-pid, SIGKILL);
    while (waitpid(-1, &status, 0) > 0 || errno == EINTR) {}
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    long long cpu_us = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000ll +
                       used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    dprintf(asked.report, "ended %d %lld %ld\n", its_status, cpu_us, used.ru_maxrss);
    _exit(0);
}

static void parse(char *argument) {
    char *value = strchr(argument, '=');
    errno = EINVAL;
    if (!value) fail(argument);
    size_t length_of_key = (size_t)(value - argument);
    value++;
#define KEY(word) (length_of_key == strlen(word) && !strncmp(argument, word, length_of_key))
    if (KEY("report")) asked.report = atoi(value);
    else if (KEY("sockets")) asked.sockets = atoi(value);
    else if (KEY("landlock")) asked.landlock = atoi(value);
    else if (KEY("private")) asked.private = atoi(value);
    else if (KEY("loopback")) asked.loopback = atoi(value);
    else if (KEY("parent")) asked.parent = atoi(value);
    else if (KEY("uid")) asked.uid = atol(value);
    else if (KEY("gid")) asked.gid = atol(value);
    else if (KEY("cwd")) asked.cwd = value;
    else if (KEY("scratch")) asked.scratch = value;
    else if (KEY("read") && asked.n_reads < MANY) asked.reads[asked.n_reads++] = value;
    else if (KEY("write") && asked.n_writes < MANY) asked.writes[asked.n_writes++] = value;
    else if (KEY("file") && asked.n_files < MANY) asked.files[asked.n_files++] = value;
    else {
        for (size_t i = 0; i < N_LIMITS; i++)
            if (KEY(limits[i].key)) {
                limits[i].value = atoll(value);
                return;
            }
        fail(argument);
    }
}

/* Return inside, in a process that is as the arguments say. */
static void enter(void) {
    fcntl(asked.report, F_SETFD, FD_CLOEXEC);
    signal(SIGPIPE, SIG_IGN);
    if (asked.private) enter_namespaces();
    if (asked.loopback) raise_loopback();
    if (asked.scratch) mount_scratch();
    copy_files();
    if (getpid() != 1) prctl(PR_SET_PDEATHSIG, asked.private ? SIGKILL : SIGTERM);
    if (asked.parent && getppid() != asked.parent) _exit(128 + SIGTERM); /* it ended before that */
    if (asked.private) {
        /* The first process of the PID namespace waits; when it ends, all others do. */
        int alive[2]; /* as long as this process holds its end */
        if (pipe2(alive, O_CLOEXEC)) fail("pipe");
        pid_t first = fork();
        if (first < 0) fail("fork");
        close(alive[first == 0]);
        if (first != 0) {
            int status;
            while (waitpid(first, &status, 0) < 0 && errno == EINTR) {}
            _exit(0);
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct pollfd ended = {.fd = alive[0]};
        if (poll(&ended, 1, 0)) _exit(128 + SIGTERM); /* before that */
        close(alive[0]);
    }
    supervise();
}

#ifndef GUARD_MODULE
int main(int argc, char **argv) {
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--"); i++) parse(argv[i]);
    if (i + 1 >= argc || asked.report < 0) {
        fputs("guard KEY=VALUE ... -- COMMAND ...; see the head of guard.c\n", stderr);
        return 2;
    }
    argv += i + 1;
    enter();
    signal(SIGPIPE, SIG_DFL);
    execvp(argv[0], argv);
    fail(argv[0]);
}
#endif
