//! What a visitor of the demo reads: its configuration file, and what to try.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const CONFIG: &str = include_str!("flagstone.toml");
const GUIDE: &str = include_str!("guide.txt");
const CONFIG_NAME: &str = "flagstone.toml";
const STATE_NAME: &str = "state";

/// Where everything of a running demo is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Flagstone's listener.
    pub web: SocketAddr,
    /// Flagstone's admin side.
    pub admin: SocketAddr,
    /// The sample app itself, for a look without Flagstone before it.
    pub app: SocketAddr,
    /// The folder that [`write_config`] wrote to, absolute.
    pub folder: PathBuf,
}

/// Writes the demo's `flagstone.toml` and its empty state folder into `dir`, and returns the file's path.
///
/// Port 0 is written as it is: such a listener takes any free port.
///
/// # Errors
/// What creating the folder or the file says.
pub fn write_config(dir: &Path, listen: SocketAddr, admin: SocketAddr, app_addr: SocketAddr) -> io::Result<PathBuf> {
    std::fs::create_dir_all(dir.join(STATE_NAME))?;
    let file = dir.join(CONFIG_NAME);
    let text = CONFIG
        .replace("{web}", &listen.to_string())
        .replace("{admin}", &admin.to_string())
        .replace("{app}", &app_addr.to_string());
    std::fs::write(&file, text)?;
    Ok(file)
}

/// The text that the demo prints: addresses, then five things to try, each ready to paste into a shell.
pub fn things_to_try(addresses: &Addresses) -> String {
    let config = quoted(&addresses.folder.join(CONFIG_NAME));
    let flag = quoted(&addresses.folder.join(STATE_NAME).join("maintenance.flag"));
    // The paths last: they may hold anything.
    GUIDE
        .replace("{web}", &addresses.web.to_string())
        .replace("{admin}", &addresses.admin.to_string())
        .replace("{app}", &addresses.app.to_string())
        .replace("{flag}", &flag)
        .replace("{config}", &config)
}

/// A path as a POSIX shell reads it: quoted only when it needs to be.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if path.bytes().all(plain) { path.into_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn config_is_toml_with_the_addresses_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = write_config(folder.path(), address(1001), address(1002), address(1003)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let config: toml::Table = text.parse().unwrap();
        assert_eq!(config["listener"][0]["address"].as_str(), Some("127.0.0.1:1001"));
        assert_eq!(config["admin"]["listen"].as_str(), Some("127.0.0.1:1002"));
        assert_eq!(config["upstream"]["app"]["endpoints"][0].as_str(), Some("127.0.0.1:1003"));
        assert!(folder.path().join("state").is_dir());
    }

    #[test]
    fn every_name_that_a_route_uses_exists() {
        let config: toml::Table = CONFIG.parse().unwrap();
        for route in config["route"].as_array().unwrap() {
            if let Some(upstream) = route.get("upstream") {
                assert!(config["upstream"].get(upstream.as_str().unwrap()).is_some(), "{route}");
            }
            for limit in route.get("limits").and_then(|limits| limits.as_array()).into_iter().flatten() {
                assert!(config["limit"].get(limit.as_str().unwrap()).is_some(), "{route}");
            }
        }
    }

    #[test]
    fn text_names_every_address_and_five_things() {
        let folder = PathBuf::from("/tmp/it's here");
        let text = things_to_try(&Addresses { web: address(1001), admin: address(1002), app: address(1003), folder });
        for part in ["http://127.0.0.1:1001/", "http://127.0.0.1:1002/", "http://127.0.0.1:1003/"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains(r"touch '/tmp/it'\''s here/state/maintenance.flag'"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count(), 5);
    }

    #[test]
    fn the_line_that_sed_edits_is_in_the_file() {
        assert!(CONFIG.contains("Edit me"));
    }
}
