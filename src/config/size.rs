//! Sizes in bytes as people write them: `"64KiB"`, `"10MB"`, `65536`.

/// What the schema accepts for a size written as a string.
pub(super) const PATTERN: &str = "^[0-9]+(B|KB|MB|GB|KiB|MiB|GiB)?$";

const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Reads a whole number of bytes with an optional unit; at most `i64::MAX`, TOML's largest integer.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    if digits.is_empty() {
        return Err(how_to_write());
    }
    let Some(&(_, factor)) = UNITS.iter().find(|&&(name, _)| name == unit) else {
        return Err(wrong_unit(digits, unit));
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(factor))
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or_else(|| "this is more bytes than can be counted: write a smaller size".to_owned())
}

/// The shortest text that [`parse`] reads back: `"64KiB"`.
pub fn format(bytes: u64) -> String {
    let (name, factor) = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        .into_iter()
        .find(|&(_, factor)| bytes >= factor && bytes.is_multiple_of(factor))
        .unwrap_or(("B", 1));
    format!("{}{name}", bytes / factor)
}

fn wrong_unit(digits: &str, unit: &str) -> String {
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kib" | "ki" => "KiB",
        "m" | "mib" | "mi" => "MiB",
        "g" | "gib" | "gi" => "GiB",
        "kb" => "KB",
        "mb" => "MB",
        "gb" => "GB",
        "b" => "B",
        _ => return how_to_write(),
    };
    format!("not a size: write \"{digits}{meant}\"")
}

fn how_to_write() -> String {
    "not a size: write a whole number and a unit, such as \"64KiB\" or \"10MiB\" (B, KB, MB, GB, KiB, MiB, GiB)"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn binary_and_decimal_units_differ() {
        assert_eq!(parse("64KiB"), Ok(65_536));
        assert_eq!(parse("64KB"), Ok(64_000));
        assert_eq!(parse("10MiB"), Ok(10_485_760));
        assert_eq!(parse("10MB"), Ok(10_000_000));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        assert_eq!(parse("512B"), Ok(512));
        assert_eq!(parse("512"), Ok(512));
        assert_eq!(parse("0"), Ok(0));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "B", "-1", "1.5MiB", "10 MiB", "10TB", "99999999999999999999", "9999999999GiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_written_in_the_largest_unit_that_divides_it() {
        for (bytes, written) in [
            (0, "0B"),
            (1023, "1023B"),
            (1 << 10, "1KiB"),
            ((64 << 10) + 1, "65537B"),
            (1025 << 10, "1025KiB"),
            (16 << 20, "16MiB"),
            (3 << 29, "1536MiB"),
            (1 << 30, "1GiB"),
            (2 << 40, "2048GiB"),
        ] {
            assert_eq!(format(bytes), written);
        }
    }

    #[test]
    fn a_near_miss_is_told_its_unit() {
        for (units, meant) in [
            (["k", "Ki", "kib"], "KiB"),
            (["m", "Mi", " MiB"], "MiB"),
            (["G", "Gi", "GIB"], "GiB"),
            (["kb", "Kb", "kB"], "KB"),
            (["mb", "Mb", "mB"], "MB"),
            (["gb", "Gb", "gB"], "GB"),
            (["b", " b", " B"], "B"),
        ] {
            for unit in units {
                assert_eq!(parse(&format!("10{unit}")), Err(format!("not a size: write \"10{meant}\"")), "{unit}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_is_read_back(bytes in 0..=u64::try_from(i64::MAX).unwrap()) {
            prop_assert_eq!(parse(&format(bytes)), Ok(bytes));
        }

        #[test]
        fn whatever_is_wrong_comes_with_a_remedy(text in "\\PC*|-?[0-9]{0,25}[a-zA-Z]{0,3}(/[0-9]{1,9}[a-z]{1,2})?") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.contains(": "), "{}", error);
            }
        }

        #[test]
        fn digits_and_units_never_panic(text in "[0-9]{0,25}(B|KB|MB|GB|KiB|MiB|GiB)?") {
            let _ = parse(&text);
        }
    }
}
