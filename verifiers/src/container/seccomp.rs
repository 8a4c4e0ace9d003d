//! System calls that a job may make; every other one fails with EPERM, as under Docker's default profile.
//!
//! Left out beside what is privileged: keyrings, `ptrace`, `io_uring`, `userfaultfd`, `perf_event_open`, `bpf`, namespaces,
//! sockets of other families than Unix, IP and netlink (a virtual machine's vsock leads to its host).
//!
//! Source: moby/profiles seccomp/default.json, OCI Runtime Specification 1.0.2 (config-linux.md, Seccomp).

use serde_json::{Value, json};

const ALLOWED: &str = "accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_getres \
    clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create \
    epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group \
    faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr \
    flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait \
    futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer \
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit get_robust_list \
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch ioctl io_cancel io_destroy io_getevents io_setup io_submit ioprio_get ioprio_set kill \
    lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier \
    memfd_create mincore mkdir mkdirat mlock mlock2 mlockall mmap mprotect mremap msgctl msgget msgrcv msgsnd msync \
    munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev \
    pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg removexattr rename renameat renameat2 \
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max \
    sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto setgid \
    setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit set_robust_list setsid \
    setsockopt set_tid_address setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 \
    socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timerfd_create timerfd_gettime timerfd_settime timer_getoverrun timer_gettime timer_settime \
    times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev";

/// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: in an empty network namespace none of them leads anywhere.
const FAMILIES: [u32; 4] = [1, 2, 10, 16];
/// Every flag of `clone` that makes a namespace.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// Domains of `personality` that change nothing of note: Linux, its UNAME26 forms, and the question.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const ENOSYS: u32 = 38;

pub(super) fn profile() -> Value {
    let equal = |name: &str, value: u32| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] });
    let names: Vec<&str> = ALLOWED.split_whitespace().collect();
    let mut rules = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
        }),
        // Its flags lie in memory, where no filter sees them; C libraries then take `clone`.
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
    ];
    rules.extend(FAMILIES.map(|family| equal("socket", family)));
    rules.extend(PERSONALITIES.map(|domain| equal("personality", domain)));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules })
}
