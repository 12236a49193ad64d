//! What this process was given at its start: listening sockets, by systemd or by the process before it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use serde_json::Value;

use super::channel::{Channel, ChannelError, Passed, Word};
use super::spawn::FIRST;
use super::successor::fd_name;
use super::{CHANNEL, SPARE};
use crate::config::model::Address;
use crate::listener::bind::Bound;

/// More than any unit has sockets.
pub(super) const SOCKETS_MAX: i32 = 4096;
/// How long the process before may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sockets that need not be bound, and the process before, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    sockets: Vec<Socket>,
    pub(crate) predecessor: Option<Predecessor>,
}

#[derive(Debug)]
struct Socket {
    bound: Bound,
    whose: Whose,
}

#[derive(Debug)]
enum Whose {
    /// systemd's, with the name its unit gives it.
    Unit(String),
    /// A listener's, with its address as configured there.
    Listener(String, String),
    /// The admin side's.
    Admin(String),
}

/// The process that is to be replaced.
#[derive(Debug)]
pub(crate) struct Predecessor(Channel);

impl Inheritance {
    /// Takes what the environment promises. To be called once, before anything else opens a file.
    ///
    /// # Errors
    /// It promises what is not there.
    pub(crate) fn take() -> Result<Self, String> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
        // Another process's: one that started us without clearing its environment.
        if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
            return Ok(Self::default());
        }
        let count = number("LISTEN_FDS").unwrap_or(0);
        if !(0..=SOCKETS_MAX).contains(&count) {
            return Err(format!("LISTEN_FDS={count} is not a number of sockets"));
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = Vec::new();
        for descriptor in FIRST..FIRST + count {
            let socket = own(descriptor).map_err(|error| format!("descriptor {descriptor} of LISTEN_FDS: {error}"))?;
            passed.push((names.next().unwrap_or_default().to_owned(), socket));
        }
        let mut predecessor = match number(CHANNEL) {
            None => None,
            Some(descriptor) if descriptor == FIRST + count => {
                let socket = own(descriptor).map_err(|error| format!("{CHANNEL}={descriptor}: {error}"))?;
                Some(Predecessor(Channel::new(socket.into())))
            }
            Some(descriptor) => return Err(format!("{CHANNEL}={descriptor} does not follow the sockets")),
        };
        let facts = match &mut predecessor {
            None => None,
            Some(Predecessor(channel)) => match channel.hear(PATIENCE, || false) {
                Ok(Word::Hello { sockets }) => Some(sockets),
                Ok(_) => return Err("the process before says something else than which sockets it passes".into()),
                Err(error) => return Err(format!("the process before does not say which sockets it passes: {error}")),
            },
        };
        let mut facts = facts.map(Vec::into_iter);
        let mut sockets = Vec::new();
        for (name, socket) in passed {
            let (whose, is_bequeathed) = match facts.as_mut().map(Iterator::next) {
                None => (Whose::Unit(name.clone()), false),
                Some(Some(Passed { listener: Some(listener), .. })) if listener == SPARE => {
                    (Whose::Unit(listener), false)
                }
                Some(Some(Passed { listener: Some(listener), address, is_owned })) => {
                    (Whose::Listener(listener, address), is_owned)
                }
                Some(Some(Passed { listener: None, address, is_owned })) => (Whose::Admin(address), is_owned),
                Some(None) => return Err("the process before passes more sockets than it says".into()),
            };
            let bound = Bound::inherit(socket, is_bequeathed);
            let bound = bound.map_err(|error| format!("the inherited socket {name:?}: {error}"))?;
            sockets.push(Socket { bound, whose });
        }
        Ok(Self { sockets, predecessor })
    }

    /// The socket for a listener, if it was passed.
    pub(crate) fn listener(&mut self, name: &str, address: &Address) -> Option<Bound> {
        let text = address.to_string();
        let is_free_port = matches!(address, Address::Socket(address) if address.port() == 0);
        self.find(|socket| match &socket.whose {
            Whose::Listener(listener, configured) => listener == name && *configured == text,
            Whose::Unit(unit) => *unit == fd_name(name),
            Whose::Admin(_) => false,
        })
        .or_else(|| {
            // The same place under another name. Any free port is no place.
            self.find(|socket| match &socket.whose {
                Whose::Listener(_, configured) => *configured == text && !is_free_port,
                Whose::Unit(_) => socket.bound.address().is_ok_and(|bound| bound == *address),
                Whose::Admin(_) => false,
            })
        })
    }

    /// The sockets of listeners that have not been asked for: the process before closes them.
    pub(crate) fn other_listeners(&self) -> impl Iterator<Item = &Bound> {
        self.sockets.iter().filter(|it| matches!(it.whose, Whose::Listener(..))).map(|it| &it.bound)
    }

    /// The socket of the admin side, as [`Inheritance::other_listeners`].
    pub(crate) fn other_admin(&self) -> Option<&Bound> {
        self.sockets.iter().find(|it| matches!(it.whose, Whose::Admin(_))).map(|it| &it.bound)
    }

    /// The socket for the admin side, if it was passed.
    pub(crate) fn admin(&mut self, address: &Address) -> Option<Bound> {
        let text = address.to_string();
        self.find(|socket| match &socket.whose {
            Whose::Admin(configured) => *configured == text,
            Whose::Unit(unit) => unit == "admin" || socket.bound.address().is_ok_and(|bound| bound == *address),
            Whose::Listener(..) => false,
        })
    }

    fn find(&mut self, is_it: impl Fn(&Socket) -> bool) -> Option<Bound> {
        let index = self.sockets.iter().position(is_it)?;
        Some(self.sockets.swap_remove(index).bound)
    }

    /// What nobody wanted: the names of the listeners that had sockets, which are closed, and those of units, which stay
    /// open elsewhere. Says so of what somebody configured.
    pub(crate) fn rest(&mut self) -> (Vec<String>, Vec<Bound>) {
        let (mut names, mut of_units) = (Vec::new(), Vec::new());
        for Socket { bound, whose } in self.sockets.drain(..) {
            match (whose, bound.address()) {
                (Whose::Unit(name), Ok(address)) => {
                    // The process before has said so, or was told by a reload.
                    if self.predecessor.is_none() {
                        tracing::warn!(name, %address, "no listener has the name or the address of this inherited socket");
                    }
                    of_units.push(bound);
                }
                (Whose::Listener(name, _), _) => names.push(name),
                (Whose::Unit(_) | Whose::Admin(_), _) => {}
            }
        }
        (names, of_units)
    }
}

impl Predecessor {
    /// Says that everything is built, without the sockets of `unwanted` listeners, and gets what the other process
    /// knows; `None` when it has gone meanwhile.
    pub(crate) fn state(&mut self, unwanted: Vec<String>) -> Option<Value> {
        let built = Word::Built { version: env!("CARGO_PKG_VERSION").to_owned(), unwanted };
        let heard = self.0.say(&built, PATIENCE).and_then(|()| self.0.hear(PATIENCE, || false));
        match heard {
            Ok(Word::State(state)) => Some(state),
            Ok(_) | Err(_) => {
                tracing::warn!("the process before tells nothing of its state; it begins anew");
                None
            }
        }
    }

    /// Says that this process accepts.
    pub(crate) fn serving(&mut self) {
        // Gone: then there is nobody but us, and we serve.
        let _ = self.0.say(&Word::Serving, PATIENCE);
    }

    /// Another handle on it, beside [`Predecessor::wait_for_commit`].
    pub(crate) fn twin(&self) -> Option<Self> {
        self.0.try_clone().ok().map(Self)
    }

    /// Says why this process will not serve; false when the other one does not hear it.
    pub(crate) fn failed(&mut self, reason: String) -> bool {
        self.0.say(&Word::Failed { reason }, PATIENCE).is_ok()
    }

    /// Waits until the other process has stepped back, or is gone. The scopes of the maintenance that it has told of,
    /// where it says so.
    pub(crate) fn wait_for_commit(mut self) -> Option<Vec<String>> {
        loop {
            match self.0.hear(PATIENCE, || false) {
                Ok(Word::Committed { maintenance }) => return maintenance,
                Err(ChannelError::Gone) => {
                    tracing::warn!("the process before has gone without a word; this one serves on");
                    return None;
                }
                // It would have killed us if it wanted us gone.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

#[allow(unsafe_code, reason = "a descriptor that another process passed is a number until it is owned")]
fn own(descriptor: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number and says whether it is an open descriptor.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as was just seen. The environment says that it was opened for this process to have, and
    // `Inheritance::take` runs once, before anything else in this process could have got that number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
