//! What one client does, made from a seed: the same seed is the same script.

use std::time::Duration;

use fastrand::Rng;

/// `max_replay`.
const REPLAY_MAX: usize = 64 * 1024;

/// Requests on one connection.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) asks: Vec<Ask>,
    /// HTTP/2, all of them at once; else HTTP/1, in bursts.
    pub(super) is_http2: bool,
    /// How many are sent before the first answer is read.
    pub(super) burst: usize,
    /// What is sent comes in pieces of that many bytes.
    pub(super) piece: usize,
    /// Little of an answer fits in on the client's side.
    pub(super) takes_little: bool,
    /// The client goes away when it has sent them.
    pub(super) leaves: bool,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) id: u64,
    pub(super) method: &'static str,
    pub(super) upload: Option<Upload>,
    pub(super) answer: Answer,
    /// Of the answer's body.
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Upload {
    pub(super) bytes: usize,
    pub(super) is_chunked: bool,
}

/// What the app does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Answer {
    /// Its length is told.
    Sized,
    Chunked,
    /// It lasts until the connection closes.
    ToTheEnd,
    /// It comes before the request's body has been read.
    Early,
    Late,
    Nothing,
    /// Half of what was announced comes, then FIN.
    CutOff,
    /// The same, then RST.
    Reset,
    /// Half of it, in chunks.
    CutOffChunks,
    /// The connection closes in place of an answer.
    None,
}

impl Answer {
    pub(super) const ALL: [Self; 10] = [
        Self::Sized,
        Self::Chunked,
        Self::ToTheEnd,
        Self::Early,
        Self::Late,
        Self::Nothing,
        Self::CutOff,
        Self::Reset,
        Self::CutOffChunks,
        Self::None,
    ];

    /// Those that come, and whole.
    pub(super) const GOOD: [Self; 6] =
        [Self::Sized, Self::Chunked, Self::ToTheEnd, Self::Early, Self::Late, Self::Nothing];

    /// Whether the app is at fault.
    pub(super) fn is_broken(self) -> bool {
        matches!(self, Self::CutOff | Self::Reset | Self::CutOffChunks | Self::None)
    }
}

impl Ask {
    /// It says what is wanted.
    pub(super) fn path(&self) -> String {
        let place = Answer::ALL.iter().position(|answer| *answer == self.answer).expect("all are there");
        format!("/{place}/{}/{}", self.id, self.bytes)
    }

    /// The app's way back from [`Self::path`]: what, for which request, of how many bytes.
    pub(super) fn of_path(path: &str) -> Option<(Answer, u64, usize)> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let answer = *Answer::ALL.get(parts.next()?.parse::<usize>().ok()?)?;
        Some((answer, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// Whether it may be sent to an app a second time, by the method and by what is kept of its body.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method != "POST" && self.upload.is_none_or(|upload| upload.bytes <= REPLAY_MAX)
    }

    /// What its client sends.
    pub(super) fn upload(&self) -> Vec<u8> {
        self.upload.map_or_else(Vec::new, |upload| body(!self.id, upload.bytes))
    }

    /// What the app answers, where it does well.
    pub(super) fn expected(&self) -> Vec<u8> {
        if self.method == "HEAD" { Vec::new() } else { body(self.id, self.bytes) }
    }
}

/// A body that no other request has.
pub(super) fn body(id: u64, bytes: usize) -> Vec<u8> {
    let mut random = Rng::with_seed(id);
    (0..bytes).map(|_| random.u8(..)).collect()
}

/// To tell two bodies apart.
pub(super) fn checksum(body: &[u8]) -> String {
    let sum = body.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{}-{sum:x}", body.len())
}

impl Script {
    /// The app does one of `answers` to each.
    pub(super) fn new(seed: u64, answers: &[Answer]) -> Self {
        let mut random = Rng::with_seed(seed);
        let is_http2 = random.u8(..3) == 0;
        let count = random.usize(1..=6);
        Self {
            asks: (0..count as u64).map(|index| ask(seed * 8 + index, answers, &mut random)).collect(),
            is_http2,
            burst: random.usize(1..=count),
            piece: *random.choice(&[7, 500, 20_000, usize::MAX][..]).expect("there are some"),
            takes_little: random.u8(..4) == 0,
            leaves: random.u8(..10) == 0,
        }
    }

    /// Between two pieces.
    pub(super) const PAUSE: Duration = Duration::from_micros(200);
}

fn ask(id: u64, answers: &[Answer], random: &mut Rng) -> Ask {
    let method = *random.choice(&["GET", "GET", "GET", "HEAD", "POST", "PUT"][..]).expect("there are some");
    let has_upload = matches!(method, "POST" | "PUT");
    let upload = has_upload.then(|| Upload { bytes: size(random), is_chunked: random.bool() });
    let answer = match *random.choice(answers).expect("there are some") {
        // An answer to HEAD cannot break off: its connection would merely close, unannounced, on the next request.
        answer if method == "HEAD" && answer.is_broken() => Answer::Sized,
        answer => answer,
    };
    let bytes = if answer == Answer::Nothing { 0 } else { size(random).max(2) };
    Ask { id, method, upload, answer, bytes }
}

fn size(random: &mut Rng) -> usize {
    match random.u8(..8) {
        0 => 0,
        1..=4 => random.usize(1..2_000),
        5 | 6 => random.usize(2_000..70_000),
        _ => random.usize(70_000..400_000),
    }
}
