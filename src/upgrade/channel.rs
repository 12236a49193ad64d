//! What the two processes of an upgrade say to each other: frames of JSON over a socket pair.
//!
//! They may be of different versions. Whatever one does not know it leaves out; the state has a version of its own.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Above any state there is: 24 bytes for each of ten million keys.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How often whoever waits looks around.
const GLANCE: Duration = Duration::from_millis(50);

/// A word of either.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    /// Which sockets were passed, in their order.
    Hello {
        sockets: Vec<Passed>,
    },
    /// What the listeners of these names had is not wanted.
    Built {
        version: String,
        unwanted: Vec<String>,
    },
    /// It will not serve, and why.
    Failed {
        reason: String,
    },
    State(Value),
    Serving,
    Committed {
        /// The scopes of the maintenance that was told of; `None` where nobody says (an older version).
        maintenance: Option<Vec<String>>,
    },
}

/// A socket that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// `None` = the admin side's.
    pub(crate) listener: Option<String>,
    /// As configured.
    pub(crate) address: String,
    /// Nobody beside the two has it: it is closed in the end, and the file of a unix socket removed.
    pub(crate) is_owned: bool,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

/// What of a word is still to be said.
#[derive(Debug)]
pub(crate) struct Rest(Vec<u8>);

/// Why no word came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("the other process has gone")]
    Gone,
    #[error("it took longer than {} s", .0.as_secs())]
    Slow(Duration),
    #[error("it was called off")]
    CalledOff,
    #[error("what it says is not understood: {0}")]
    Unintelligible(String),
}

impl Channel {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Another handle on the same end.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Says a word, to somebody who listens within `patience`.
    ///
    /// # Errors
    /// [`ChannelError::Gone`] or [`ChannelError::Slow`].
    pub(crate) fn say(&mut self, word: &Word, patience: Duration) -> Result<(), ChannelError> {
        self.write(&frame_of(word)?, patience)
    }

    /// Says as much of a word as is taken although nobody listens yet, some 200 KiB.
    ///
    /// # Errors
    /// [`ChannelError::Gone`].
    pub(crate) fn begin(&mut self, word: &Word) -> Result<Rest, ChannelError> {
        let mut frame = frame_of(word)?;
        let begin = || -> io::Result<usize> {
            self.0.set_nonblocking(true)?;
            let mut said = 0;
            while said < frame.len() {
                match (&self.0).write(&frame[said..]) {
                    Ok(taken) => said += taken,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            self.0.set_nonblocking(false)?;
            Ok(said)
        };
        let said = begin().map_err(|_| ChannelError::Gone)?;
        Ok(Rest(frame.split_off(said)))
    }

    /// Says what was left, to somebody who listens within `patience`.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub(crate) fn go_on(&mut self, rest: &Rest, patience: Duration) -> Result<(), ChannelError> {
        self.write(&rest.0, patience)
    }

    fn write(&self, bytes: &[u8], patience: Duration) -> Result<(), ChannelError> {
        let write = self.0.set_write_timeout(Some(patience)).and_then(|()| (&self.0).write_all(bytes));
        write.map_err(|error| if is_timeout(&error) { ChannelError::Slow(patience) } else { ChannelError::Gone })
    }

    /// Waits for a word. `is_called_off` is asked now and then.
    ///
    /// # Errors
    /// None came, for whatever reason.
    pub(crate) fn hear(&mut self, patience: Duration, is_called_off: impl Fn() -> bool) -> Result<Word, ChannelError> {
        let deadline = Instant::now() + patience;
        let mut fill = |buffer: &mut [u8]| -> Result<(), ChannelError> {
            let mut filled = 0;
            while filled < buffer.len() {
                self.0.set_read_timeout(Some(GLANCE)).map_err(|_| ChannelError::Gone)?;
                match self.0.read(&mut buffer[filled..]) {
                    Ok(0) => return Err(ChannelError::Gone),
                    Ok(read) => filled += read,
                    Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Err(ChannelError::Gone),
                }
                if filled < buffer.len() && is_called_off() {
                    return Err(ChannelError::CalledOff);
                }
                if filled < buffer.len() && Instant::now() >= deadline {
                    return Err(ChannelError::Slow(patience));
                }
            }
            Ok(())
        };
        let mut length = [0; 4];
        fill(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(ChannelError::Unintelligible(format!("a frame of {length} bytes")));
        }
        let mut text = vec![0; length];
        fill(&mut text)?;
        let value = serde_json::from_slice(&text).map_err(|error| ChannelError::Unintelligible(error.to_string()))?;
        Word::from_json(value).ok_or_else(|| ChannelError::Unintelligible("a word that is not known".into()))
    }
}

/// A word as it is sent: how long it is, then its text.
fn frame_of(word: &Word) -> Result<Vec<u8>, ChannelError> {
    let text = word.to_json().to_string();
    let length = u32::try_from(text.len()).map_err(|_| ChannelError::Unintelligible("it is too much".into()))?;
    Ok([&length.to_le_bytes(), text.as_bytes()].concat())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Word {
    fn to_json(&self) -> Value {
        match self {
            Self::Hello { sockets } => {
                let socket = |passed: &Passed| json!({ "listener": passed.listener, "address": passed.address, "owned": passed.is_owned });
                json!({ "word": "hello", "sockets": sockets.iter().map(socket).collect::<Vec<_>>() })
            }
            Self::Built { version, unwanted } => json!({ "word": "built", "version": version, "unwanted": unwanted }),
            Self::Failed { reason } => json!({ "word": "failed", "reason": reason }),
            Self::State(state) => json!({ "word": "state", "state": state }),
            Self::Serving => json!({ "word": "serving" }),
            Self::Committed { maintenance } => json!({ "word": "committed", "maintenance": maintenance }),
        }
    }

    fn from_json(mut value: Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(match value["word"].as_str()? {
            "hello" => {
                let socket = |socket: &Value| {
                    Some(Passed {
                        listener: socket["listener"].as_str().map(str::to_owned),
                        address: socket["address"].as_str()?.to_owned(),
                        is_owned: socket["owned"].as_bool().unwrap_or(false),
                    })
                };
                Self::Hello { sockets: value["sockets"].as_array()?.iter().map(socket).collect::<Option<_>>()? }
            }
            "built" => {
                let unwanted = value["unwanted"].as_array().into_iter().flatten();
                let unwanted = unwanted.filter_map(|name| name.as_str().map(str::to_owned)).collect();
                Self::Built { version: text("version")?, unwanted }
            }
            "failed" => Self::Failed { reason: text("reason")? },
            "state" => Self::State(value["state"].take()),
            "serving" => Self::Serving,
            "committed" => {
                let scopes = value["maintenance"].as_array();
                let scopes = scopes.map(|it| it.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect());
                Self::Committed { maintenance: scopes }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one), Channel::new(other))
    }

    #[test]
    fn every_word_arrives_as_it_was_said() {
        let (mut one, mut other) = pair();
        let words = [
            Word::Hello {
                sockets: vec![
                    Passed { listener: Some("web".into()), address: "127.0.0.1:0".into(), is_owned: false },
                    Passed { listener: None, address: "unix:/a".into(), is_owned: true },
                ],
            },
            Word::Built { version: "1.2.3".into(), unwanted: vec!["web".into()] },
            Word::Failed { reason: "no such file".into() },
            Word::State(json!({ "version": 1 })),
            Word::Serving,
            Word::Committed { maintenance: None },
            Word::Committed { maintenance: Some(vec!["global".into()]) },
        ];
        for word in &words {
            one.say(word, PATIENCE).unwrap();
        }
        for word in words {
            assert_eq!(other.hear(PATIENCE, || false).unwrap(), word);
        }
        drop(one);
        assert!(matches!(other.hear(PATIENCE, || false), Err(ChannelError::Gone)));
    }

    #[test]
    fn a_word_of_any_length_is_begun_before_anybody_listens() {
        let socket =
            |number| Passed { listener: Some(format!("listener-{number}")), address: "unix:/a".into(), is_owned: true };
        for count in [1, 20_000] {
            let (mut one, mut other) = pair();
            let word = Word::Hello { sockets: (0..count).map(socket).collect() };
            let rest = one.begin(&word).unwrap();
            assert_eq!(rest.0.is_empty(), count == 1, "{}", rest.0.len());
            let heard = std::thread::spawn(move || other.hear(PATIENCE, || false));
            one.go_on(&rest, PATIENCE).unwrap();
            assert_eq!(heard.join().unwrap().unwrap(), word);
        }
    }

    #[test]
    fn silence_ends_by_time_or_by_being_called_off() {
        let (_one, mut other) = pair();
        let patience = Duration::from_millis(1);
        assert!(matches!(other.hear(patience, || false), Err(ChannelError::Slow(_))));
        assert!(matches!(other.hear(PATIENCE, || true), Err(ChannelError::CalledOff)));
    }

    #[test]
    fn nonsense_is_refused_without_being_stored() {
        let frame = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_le_bytes(), text].concat();
        for bytes in [u32::MAX.to_le_bytes().to_vec(), frame(b"{}"), frame(b"{\"word\":\"x\"}"), frame(b"no")] {
            let (one, mut other) = pair();
            (&one.0).write_all(&bytes).unwrap();
            assert!(matches!(other.hear(PATIENCE, || false), Err(ChannelError::Unintelligible(_))), "{bytes:?}");
        }
    }
}
