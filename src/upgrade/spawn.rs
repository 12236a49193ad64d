//! Starts a program with descriptors in given places.
//!
//! `std::process::Command` cannot tell a child its own process id, which the convention wants in `LISTEN_PID`, and
//! keeps a pipe of its own where the descriptors are to go.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

/// Where passed descriptors begin, as sd_listen_fds(3) has it.
pub(super) const FIRST: i32 = 3;
/// The digits of a process id, and the end of the text.
const PID_ROOM: usize = 12;
/// What a child ignores until it listens, for they end a process that does neither: whoever rotates logs, or asks every
/// Flagstone to reload, means no end. It has read no file yet that they could tell it to read again.
const IGNORED: [i32; 3] = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];
/// What a shell says of a program that it cannot run.
pub(super) const NOT_EXECUTABLE: i32 = 127;

/// A child; killed and waited for on drop, unless it was let go.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    is_ours: bool,
}

impl Child {
    pub(super) fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// It lives on when this is dropped.
    pub(super) fn let_go(mut self) {
        self.is_ours = false;
    }

    /// Kills it if it still runs, and says how it ended.
    pub(super) fn end(mut self) -> Option<WaitStatus> {
        self.is_ours = false;
        end(self.pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.is_ours {
            end(self.pid);
        }
    }
}

fn end(pid: Pid) -> Option<WaitStatus> {
    // One that has just closed its end of the channel is about to exit, and its own status says more than a kill.
    for _ in 0..20 {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return Some(status),
            Ok(None) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Err(_) => return None,
        }
    }
    // Not waited for yet, so the id is still its own.
    let _ = kill_process(pid, Signal::KILL);
    waitpid(Some(pid), WaitOptions::empty()).ok().flatten().map(|(_, status)| status)
}

/// Starts `program` with the descriptors at 3 and above, in their order. Variables named in `pid_variables` get its own
/// id.
///
/// # Errors
/// The system gives no process, or an argument has a NUL in it. Whether the program can be run shows in how it ends.
pub(super) fn spawn(
    program: &Path,
    arguments: &[OsString],
    environment: Vec<(OsString, OsString)>,
    pid_variables: &[&str],
    descriptors: Vec<OwnedFd>,
) -> io::Result<Child> {
    let first_free = FIRST + i32::try_from(descriptors.len()).map_err(io::Error::other)?;
    // Out of the way of the places that they go to.
    let lifted = descriptors.iter().map(|descriptor| rustix::io::fcntl_dupfd_cloexec(descriptor.as_fd(), first_free));
    let lifted = lifted.collect::<Result<Vec<OwnedFd>, _>>()?;
    let sources: Vec<i32> = lifted.iter().map(AsRawFd::as_raw_fd).collect();

    let path = CString::new(program.as_os_str().as_bytes())?;
    let arguments =
        arguments.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let mut variables: Vec<Vec<u8>> = environment.into_iter().map(|(name, value)| variable(&name, &value)).collect();
    let mut pid_places = Vec::with_capacity(pid_variables.len());
    for name in pid_variables {
        let mut text = variable(OsStr::new(name), OsStr::new(""));
        let digits_at = text.len() - 1;
        text.resize(digits_at + PID_ROOM, 0);
        pid_places.push((variables.len(), digits_at));
        variables.push(text);
    }
    let pid_texts: Vec<*mut u8> = pid_places.iter().map(|&(index, at)| variables[index][at..].as_mut_ptr()).collect();
    let argv: Vec<*const libc::c_char> =
        arguments.iter().map(|argument| argument.as_ptr()).chain([std::ptr::null()]).collect();
    let envp: Vec<*const libc::c_char> =
        variables.iter().map(|text| text.as_ptr().cast()).chain([std::ptr::null()]).collect();
    fork_and_exec(&path, &argv, &envp, &pid_texts, &sources)
}

fn variable(name: &OsStr, value: &OsStr) -> Vec<u8> {
    let mut text = name.to_owned().into_vec();
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
    text
}

#[allow(unsafe_code, reason = "no safe interface passes a child its own process id before it runs another program")]
fn fork_and_exec(
    path: &CString,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    pid_texts: &[*mut u8],
    sources: &[i32],
) -> io::Result<Child> {
    // SAFETY: between fork and exec the child, of what was a process with many threads, calls nothing but
    // async-signal-safe functions (signal-safety(7)) on memory that was prepared before: no allocation, no lock. The
    // pointers are to texts that end in NUL and to arrays that end in null, all alive in the caller. `pid_texts` point
    // to PID_ROOM bytes each, which the child alone writes, in its own copy.
    unsafe {
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                for signal in IGNORED {
                    libc::signal(signal, libc::SIG_IGN);
                }
                for text in pid_texts {
                    write_number(*text, libc::getpid());
                }
                for (place, source) in (FIRST..).zip(sources) {
                    // Sources are above all places, so none is overwritten. A duplicate is not closed on exec.
                    if libc::dup2(*source, place) == -1 {
                        libc::_exit(NOT_EXECUTABLE);
                    }
                }
                libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
                libc::_exit(NOT_EXECUTABLE)
            }
            pid => {
                let pid = Pid::from_raw(pid).expect("a child's id is above zero");
                Ok(Child { pid, is_ours: true })
            }
        }
    }
}

/// Writes a number from 1 in digits, with a NUL behind.
///
/// # Safety
/// `text` points to [`PID_ROOM`] bytes that may be written.
#[allow(unsafe_code, reason = "see fork_and_exec")]
unsafe fn write_number(text: *mut u8, number: i32) {
    let mut digits = [0_u8; PID_ROOM];
    let (mut rest, mut length) = (number.unsigned_abs(), 0);
    while rest > 0 {
        digits[length] = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
    }
    for index in 0..length {
        // SAFETY: ten digits are the most that an i32 has, and the caller vouches for twelve bytes.
        unsafe { text.add(index).write(digits[length - 1 - index]) };
    }
    // SAFETY: as above.
    unsafe { text.add(length).write(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_child_knows_its_id_and_has_its_descriptors() {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (mut other, others) = std::os::unix::net::UnixStream::pair().unwrap();
        other.write_all(b"word\n").unwrap();
        let script = "read word <&4; echo $word $A $((LISTEN_PID == $$)) >&3";
        let arguments = ["sh", "-c", script].map(OsString::from);
        let environment = vec![("A".into(), "b c".into())];
        let child =
            spawn(Path::new("/bin/sh"), &arguments, environment, &["LISTEN_PID"], vec![theirs.into(), others.into()]);
        let child = child.unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "word b c 1\n");
        assert_eq!(child.end().unwrap().exit_status(), Some(0));
    }

    #[test]
    fn a_child_that_is_told_to_reopen_logs_before_it_listens_lives_on() {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let script = "for signal in HUP USR1 USR2; do kill -$signal $$; done; echo alive >&3";
        let arguments = ["sh", "-c", script].map(OsString::from);
        let child = spawn(Path::new("/bin/sh"), &arguments, vec![], &[], vec![theirs.into()]).unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!((said.as_str(), child.end().unwrap().terminating_signal()), ("alive\n", None));
    }

    #[test]
    fn what_cannot_be_run_ends_like_in_a_shell() {
        let child = spawn(Path::new("/no/such/program"), &["x".into()], vec![], &[], vec![]).unwrap();
        assert_eq!(child.end().unwrap().exit_status(), Some(NOT_EXECUTABLE));
    }

    #[test]
    fn who_hangs_is_killed() {
        let child =
            spawn(Path::new("/bin/sh"), &["sh", "-c", "exec sleep 60"].map(OsString::from), vec![], &[], vec![]);
        assert_eq!(child.unwrap().end().unwrap().terminating_signal(), Some(9));
    }
}
