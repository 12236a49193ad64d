//! A folder with a page of one's own, read into memory once: templates and what they refer to.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::HeaderValue;

/// All files of the folder together.
pub const FOLDER_BYTES_MAX: u64 = 8 * 1024 * 1024;
const FILES_MAX: usize = 1024;
const DEPTH_MAX: usize = 8;

/// Why a page folder cannot be used. What is wrong *in* a template is no such error.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds more than {FOLDER_BYTES_MAX} bytes, or more than {FILES_MAX} files", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not UTF-8", path.display())]
    NotText { path: PathBuf },
}

/// A file that a custom page refers to.
#[derive(Clone, Debug)]
pub struct Asset {
    pub content_type: HeaderValue,
    pub body: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct PageFolder {
    /// By file name: `index.html`, `index.de.html`, `index.json`, `index.txt`.
    pub(super) templates: Vec<(String, String)>,
    /// By path in the folder, with `/`.
    pub(super) assets: HashMap<String, Asset>,
}

impl PageFolder {
    pub(super) fn read(folder: &Path) -> Result<Self, PageError> {
        let mut reader = Reader { root: folder, read: Self::default(), bytes_left: FOLDER_BYTES_MAX };
        reader.folder(folder, "", 0)?;
        reader.read.templates.sort();
        Ok(reader.read)
    }
}

struct Reader<'a> {
    root: &'a Path,
    read: PageFolder,
    bytes_left: u64,
}

impl Reader<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), PageError> {
        let failed = |source| PageError::Read { path: folder.to_owned(), source };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            // Dot files are editors' and the kubelet's; a name that is no text cannot be asked for.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            // Follows links: a mounted ConfigMap is nothing else.
            let metadata = fs::metadata(&path).map_err(|source| PageError::Read { path: path.clone(), source })?;
            if metadata.is_dir() && depth < DEPTH_MAX {
                self.folder(&path, &format!("{prefix}{name}/"), depth + 1)?;
            } else if metadata.is_file() {
                self.file(path, prefix, name, metadata.len())?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, prefix: &str, name: String, bytes: u64) -> Result<(), PageError> {
        let files = self.read.templates.len() + self.read.assets.len();
        let left = self.bytes_left.checked_sub(bytes).filter(|_| files < FILES_MAX);
        self.bytes_left = left.ok_or_else(|| PageError::TooLarge { path: self.root.to_owned() })?;
        let body = fs::read(&path).map_err(|source| PageError::Read { path: path.clone(), source })?;
        if prefix.is_empty() && is_template(&name) {
            let source = String::from_utf8(body).map_err(|_| PageError::NotText { path })?;
            self.read.templates.push((name, source));
        } else {
            let asset = Asset { content_type: content_type(&name), body: Bytes::from(body) };
            self.read.assets.insert(format!("{prefix}{name}"), asset);
        }
        Ok(())
    }
}

/// The language of `index.LANG.html`; empty for `index.html`.
pub(super) fn language_of(name: &str) -> Option<&str> {
    let middle = name.strip_prefix("index")?.strip_suffix(".html")?;
    if middle.is_empty() { Some("") } else { middle.strip_prefix('.').filter(|lang| !lang.is_empty()) }
}

fn is_template(name: &str) -> bool {
    matches!(name, "index.json" | "index.txt") || language_of(name).is_some()
}

fn content_type(name: &str) -> HeaderValue {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    HeaderValue::from_static(match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    })
}
