//! What several commands read from their arguments.

use ipnet::IpNet;

use crate::policy::maintenance::{network, parse_duration};

/// Whole seconds, rounded up.
pub(super) fn while_seconds(text: &str) -> Result<u64, String> {
    let duration = parse_duration(text)?;
    match duration.is_zero() {
        true => Err("is no time at all".to_owned()),
        false => Ok(duration.as_secs() + u64::from(duration.subsec_nanos() > 0)),
    }
}

/// An address, or a network of them.
pub(super) fn client_network(text: &str) -> Result<IpNet, String> {
    network(text).ok_or_else(|| "is neither an address nor a CIDR such as 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_seconds_count_whole() {
        assert_eq!(while_seconds("1500ms"), Ok(2));
        assert_eq!(while_seconds("15m"), Ok(900));
        assert_eq!(while_seconds("1.5h"), Ok(5400));
        assert_eq!(while_seconds("1h 30m"), Ok(5400));
        assert!(while_seconds("0s").is_err() && while_seconds("soon").is_err());
    }
}
