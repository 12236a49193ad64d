//! One thread of another process, stopped: what a stuck thread looks like from outside (ptrace(2)).
//!
//! Signals stop whole processes; this stops a thread alone, with nothing in the program that would help. It goes on
//! when this is dropped, on the thread that stopped it.

#![allow(unsafe_code, reason = "no safe interface stops a single thread")]

use std::io;
use std::marker::PhantomData;

/// A stopped thread.
#[derive(Debug)]
pub struct Frozen {
    thread: i32,
    /// Only the thread that has stopped another one may let it go on.
    _here: PhantomData<*const ()>,
}

/// Stops those threads of a process whose names begin with `name`.
///
/// # Errors
/// The system lets nobody trace it.
///
/// # Panics
/// There is no such thread.
pub fn freeze(process: u32, name: &str) -> io::Result<Vec<Frozen>> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))?;
    let is_one = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end().starts_with(name))
    };
    let paths = tasks.filter_map(|task| Some(task.ok()?.path())).filter(|path| is_one(path));
    let threads = paths.filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    let frozen = threads.map(Frozen::stop).collect::<io::Result<Vec<_>>>()?;
    assert!(!frozen.is_empty(), "process {process} has no thread {name}");
    Ok(frozen)
}

impl Frozen {
    fn stop(thread: i32) -> io::Result<Self> {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        let asked = |result: libc::c_long| if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
        // SAFETY: these take a thread's number and no pointers, and refuse a number that is not to be traced.
        unsafe {
            asked(libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing))?;
            let frozen = Self { thread, _here: PhantomData };
            asked(libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing, nothing))?;
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            asked(libc::waitpid(thread, &raw mut status, libc::__WALL).into())?;
            Ok(frozen)
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above. It fails where the process has ended meanwhile, which is fine.
        unsafe {
            libc::ptrace(libc::PTRACE_DETACH, self.thread, nothing, nothing);
        }
    }
}
