//! The system calls that the process of a group needs: those of threads, memory, clocks, open sockets and files.
//!
//! All others fail as if the kernel did not have them. Not among them: new sockets of any network, `execve`, `ptrace`,
//! signals to others, `mount`, namespaces, `bpf`, `io_uring`, `userfaultfd`, keys, modules, devices.

use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is,
    SeccompCondition, SeccompFilter, SeccompRule,
};

/// Whatever their arguments.
const ALLOWED: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    // Threads, and the end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_get_robust_list,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals to itself.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Clocks and chance.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    // Who and where it is.
    libc::SYS_getcwd,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // What is open.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets that it has.
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    // Files, as far as the user and Landlock let it.
    libc::SYS_copy_file_range,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// Those that newer architectures do without.
#[cfg(target_arch = "x86_64")]
const OF_OLD: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_OLD: &[c_long] = &[];

/// `_IOWR('f', 16, struct pm_scan_arg)`: which pages were written.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// What is allowed with some arguments alone: the call, which argument, what it is to be.
fn conditional(process: u32) -> Vec<(c_long, u8, Is, u64)> {
    let same = |flag: u64| Is::MaskedEq(flag);
    let threads = (libc::CLONE_THREAD | libc::CLONE_VM) as u64;
    vec![
        // Threads, and no processes. `clone3`, whose flags a filter cannot see, is not there: then libc takes this one.
        (libc::SYS_clone, 0, same(threads), threads),
        // What abort() comes down to.
        (libc::SYS_tgkill, 0, Is::Eq, process.into()),
        // Pairs of sockets, of which both ends are its own.
        (libc::SYS_socketpair, 0, Is::Eq, libc::AF_UNIX as u64),
        // Sending on what is connected: without an address to send to.
        (libc::SYS_sendto, 4, Is::Eq, 0),
        (libc::SYS_ioctl, 1, Is::Eq, PAGEMAP_SCAN),
        (libc::SYS_ioctl, 1, Is::Eq, libc::FIONBIO),
        // Names of threads and of memory.
        (libc::SYS_prctl, 0, Is::Eq, libc::PR_SET_NAME as u64),
        (libc::SYS_prctl, 0, Is::Eq, libc::PR_SET_VMA as u64),
        // To read the limits of this process, not to set any.
        (libc::SYS_prlimit64, 2, Is::Eq, 0),
        (libc::SYS_fcntl, 1, Is::Eq, libc::F_DUPFD_CLOEXEC as u64),
        (libc::SYS_fcntl, 1, Is::Eq, libc::F_GETFD as u64),
        (libc::SYS_fcntl, 1, Is::Eq, libc::F_SETFD as u64),
        (libc::SYS_fcntl, 1, Is::Eq, libc::F_GETFL as u64),
        (libc::SYS_fcntl, 1, Is::Eq, libc::F_SETFL as u64),
        (libc::SYS_fcntl, 1, Is::Eq, libc::F_ADD_SEALS as u64),
        (libc::SYS_fcntl, 1, Is::Eq, libc::F_GET_SEALS as u64),
    ]
}

/// The filter for the process of this number.
pub(crate) fn filter(process: u32) -> Result<BpfProgram, BackendError> {
    let mut rules: std::collections::BTreeMap<c_long, Vec<SeccompRule>> = std::collections::BTreeMap::new();
    for &call in ALLOWED.iter().chain(OF_OLD) {
        rules.insert(call, Vec::new());
    }
    for (call, argument, is, value) in conditional(process) {
        // Addresses have 64 bits; of the others the kernel itself looks at 32.
        let length = match call {
            libc::SYS_sendto | libc::SYS_prlimit64 => Length::Qword,
            _ => Length::Dword,
        };
        let rule = SeccompRule::new(vec![SeccompCondition::new(argument, length, is, value)?])?;
        rules.entry(call).or_default().push(rule);
    }
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, missing, SeccompAction::Allow, ARCH.try_into()?)?.try_into()
}
