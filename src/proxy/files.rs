//! Static files, through tower-http's `ServeDir`, with a fence around the root.
//!
//! `ServeDir` keeps `..` out but follows symlinks. Here every file that is about to be served is resolved first
//! and must still lie inside the root. Nor does it read `Range` as RFC 9110 does: see `range`.

mod announced;
mod range;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use rustix::io::Errno;
use tower_http::services::ServeFile;

use self::announced::Announced;
use self::range::Extent;
use super::body::{Body, BodyError};
use super::noted::joined;
use super::refusal::Refusal;
use super::respond;
use crate::config::model;
use crate::error::is_shortage;
use crate::message::answer::told_length;

/// One route's folder.
#[derive(Clone, Debug)]
pub struct Folder {
    /// As it was written: a link is followed wherever it leads by then, as when a new release is put in its place.
    root: PathBuf,
    index: String,
    try_paths: Vec<String>,
}

impl Folder {
    /// # Errors
    /// The root does not exist or is no folder.
    pub(crate) fn open(files: &model::Files) -> io::Result<Self> {
        if !files.root.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let try_paths = match files.try_paths.is_empty() {
            true => vec!["$uri".to_owned(), "$uri/".to_owned()],
            false => files.try_paths.clone(),
        };
        Ok(Self { root: files.root.clone(), index: files.index.clone(), try_paths })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What [`serve`] would find. Blocking: it asks the file system.
    ///
    /// # Errors
    /// As [`serve`].
    pub fn foresee(&self, method: &Method, path: &str, prefix: Option<&str>) -> Result<Lookup, Refusal> {
        check_method(method)?;
        match looked_for(path, prefix).map_or(Ok(Lookup::Redirect), |path| self.find(path)) {
            Ok(Lookup::Nothing) => Err(Refusal::NoRoute),
            found => found.map_err(|error| refusal_of(&error)),
        }
    }

    /// The first of `try` that is a file inside the root. Blocking: it asks the file system.
    ///
    /// # Errors
    /// There is none, and one of them may be there.
    fn find(&self, path: &str) -> io::Result<Lookup> {
        let root = self.root.canonicalize()?;
        let mut problem = None;
        // Names are bytes, in whatever encoding.
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
        for pattern in &self.try_paths {
            let candidate = match pattern.strip_prefix("$uri") {
                Some(rest) => [&decoded, rest.as_bytes()].concat(),
                None => pattern.clone().into_bytes(),
            };
            match file_at(&root, candidate, &self.index) {
                // A folder without its slash would break the relative links of its page.
                Ok(Some(_)) if pattern == "$uri/" && !path.ends_with('/') => return Ok(Lookup::Redirect),
                Ok(Some(file)) => return Ok(Lookup::File(file)),
                Err(error) if !matches!(refusal_of(&error), Refusal::NoRoute) => problem = Some(error),
                Ok(None) | Err(_) => {}
            }
        }
        problem.map_or(Ok(Lookup::Nothing), Err)
    }
}

/// The real path of the file that `candidate` names, of a folder its index, if it lies inside the root, which has no
/// link in it.
fn file_at(root: &Path, mut candidate: Vec<u8>, index: &str) -> io::Result<Option<PathBuf>> {
    if candidate.ends_with(b"/") {
        candidate.extend_from_slice(index.as_bytes());
    }
    let Ok(relative) = Path::new(OsStr::from_bytes(&candidate)).strip_prefix("/") else { return Ok(None) };
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || candidate.contains(&0) {
        return Ok(None);
    }
    let real = root.join(relative).canonicalize()?;
    Ok((real.starts_with(root) && real.metadata()?.is_file()).then_some(real))
}

/// What is said in place of a file that cannot be had. That there is none, by whatever name, is the usual case.
fn refusal_of(error: &io::Error) -> Refusal {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => Refusal::NoRoute,
        Some(Errno::ACCESS | Errno::PERM) => Refusal::Unreadable,
        _ if is_shortage(error) => Refusal::Shortage,
        _ => Refusal::FileError,
    }
}

/// The same, and tells who runs the server.
fn refuse(what: &Path, error: &io::Error) -> Refusal {
    let refusal = refusal_of(error);
    if !matches!(refusal, Refusal::NoRoute) {
        tracing::warn!(file = %what.display(), %error, "a file cannot be served");
    }
    refusal
}

/// What there is at a path.
pub enum Lookup {
    File(PathBuf),
    /// A folder that was named without its slash.
    Redirect,
    Nothing,
}

impl Lookup {
    /// Of the answer, when nothing in the request asks for a part or for news only.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::File(_) => StatusCode::OK,
            Self::Redirect => StatusCode::PERMANENT_REDIRECT,
            Self::Nothing => StatusCode::NOT_FOUND,
        }
    }

    pub fn file(&self) -> Option<&Path> {
        if let Self::File(file) = self { Some(file) } else { None }
    }
}

fn check_method(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Refusal::MethodNotAllowed(respond::allow(&[Method::GET, Method::HEAD]))),
    }
}

/// The path below the root; `None` for what is left of the folder's own name, which lacks the slash like any other's.
fn looked_for<'p>(path: &'p str, prefix: Option<&str>) -> Option<&'p str> {
    match prefix.and_then(|prefix| path.strip_prefix(prefix)) {
        Some("") => None,
        Some(rest) if rest.starts_with('/') => Some(rest),
        _ => Some(path),
    }
}

/// Answers with a file: ranges, conditional requests and types are `ServeFile`'s. `prefix` is no part of file names.
pub(super) async fn serve<B>(
    request: Request<B>,
    folder: &Folder,
    path: &str,
    prefix: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    check_method(request.method())?;
    let Some(looked_for) = looked_for(path, prefix) else {
        return Ok(respond::to_folder(path, request.uri().query()));
    };
    let (searched, looked_for) = (folder.clone(), looked_for.to_owned());
    let lookup = tokio::task::spawn_blocking(move || searched.find(&looked_for)).await;
    match lookup.unwrap_or_else(|error| Err(error.into())) {
        Ok(Lookup::File(file)) => file_answer(request, &file).await,
        Ok(Lookup::Redirect) => Ok(respond::to_folder(path, request.uri().query())),
        Ok(Lookup::Nothing) => Err(Refusal::NoRoute),
        Err(error) => Err(refuse(&folder.root, &error)),
    }
}

async fn file_answer<B>(request: Request<B>, file: &Path) -> Result<Response<Body>, Refusal> {
    let mut request = request.map(|_| Empty::<bytes::Bytes>::new());
    join_lists(request.headers_mut());
    settle_range(&mut request, file).await;
    let mut response = ask(&request, file).await?;
    let is_part = matches!(response.status(), StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE);
    // `ServeFile` does not know If-Range: a part is only of use to who has the rest of the very same file.
    if is_part && request.headers().get(IF_RANGE).is_some_and(|known| !is_current(known, response.headers())) {
        request.headers_mut().remove(RANGE);
        response = ask(&request, file).await?;
    }
    Ok(response)
}

/// `ServeFile` looks at the first line of a list alone (RFC 9110, section 5.3).
fn join_lists(headers: &mut HeaderMap) {
    for name in [IF_MATCH, IF_NONE_MATCH] {
        let has_several = headers.get_all(&name).iter().nth(1).is_some();
        if has_several && let Some(whole) = joined(headers, &name) {
            headers.insert(name, whole);
        }
    }
}

/// Leaves of `Range` what is to be heard. `ServeFile` would refuse what is to be ignored, and also hear it with HEAD.
async fn settle_range<B>(request: &mut Request<B>, file: &Path) {
    // Two lines would be one malformed list.
    let is_single = request.headers().get_all(RANGE).iter().count() == 1;
    let Some(field) = request.headers_mut().remove(RANGE) else { return };
    if !is_single || request.method() != Method::GET {
        return;
    }
    // A file that cannot be asked about cannot be served either, which `ServeFile` will tell.
    let Ok(metadata) = tokio::fs::metadata(file).await else { return };
    if let Some(field) = Extent::of(field.as_bytes(), metadata.len()).field() {
        request.headers_mut().insert(RANGE, field);
    }
}

async fn ask(request: &Request<Empty<bytes::Bytes>>, file: &Path) -> Result<Response<Body>, Refusal> {
    let response = ServeFile::new(file).try_call(request.clone()).await.map_err(|error| refuse(file, &error))?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Refusal::NoRoute);
    }
    let left = told_length(response.headers());
    Ok(response.map(|body| {
        // To HEAD the length is all.
        let left = left.filter(|_| !body.is_end_stream()).unwrap_or(0);
        let file = body.map_err(|error| BodyError::File(error.into()));
        Body::file(Announced { file, left }.boxed_unsync())
    }))
}

/// Whether `If-Range` names the file as it is: its strong tag, or its date to the second (RFC 9110, section 13.1.5).
fn is_current(known: &HeaderValue, headers: &HeaderMap) -> bool {
    let is_same = |name| headers.get(name).is_some_and(|value| value == known);
    !known.as_bytes().starts_with(b"W/") && (is_same(ETAG) || is_same(LAST_MODIFIED))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_is_bytes() {
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join(OsStr::from_bytes(b"l\xe9.txt")), "latin").unwrap();
        fs::write(at.path().join("m\u{fffd}.txt"), "another").unwrap();
        fs::create_dir(at.path().join(OsStr::from_bytes(b"\xff"))).unwrap();
        fs::write(at.path().join(OsStr::from_bytes(b"\xff/index.html")), "index").unwrap();
        let files = model::Files { root: at.path().to_owned(), index: "index.html".to_owned(), try_paths: Vec::new() };
        let folder = Folder::open(&files).unwrap();
        let read = |path: &str| folder.find(path).unwrap().file().map(|file| fs::read_to_string(file).unwrap());
        assert_eq!(read("/l%E9.txt").as_deref(), Some("latin"));
        assert_eq!(read("/m%E9.txt"), None, "no letter stands for another");
        assert_eq!(read("/m%EF%BF%BD.txt").as_deref(), Some("another"));
        assert_eq!(read("/%FF/").as_deref(), Some("index"));
        assert!(matches!(folder.find("/%FF"), Ok(Lookup::Redirect)));
        for outside in ["/l%E9.txt%00", "/%FF/%2e%2e/%2e%2e/a", "/%2e%2e/a"] {
            assert_eq!(read(outside), None, "{outside}");
        }
    }

    #[test]
    fn only_what_is_not_there_is_not_found() {
        for (errno, status) in [
            (Errno::NOENT, 404),
            (Errno::NOTDIR, 404),
            (Errno::NAMETOOLONG, 404),
            (Errno::LOOP, 404),
            (Errno::ACCESS, 403),
            (Errno::MFILE, 503),
            (Errno::NFILE, 503),
            (Errno::NOMEM, 503),
            (Errno::IO, 500),
            (Errno::STALE, 500),
        ] {
            assert_eq!(refusal_of(&errno.into()).row().status, status, "{errno}");
        }
    }
}
