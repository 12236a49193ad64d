//! When windows come, as people write it: `"0 3 * * SUN"`.

use std::str::FromStr;

use croner::Cron;

const FIELDS: [&str; 5] = ["the minute", "the hour", "the day", "the month", "the weekday"];

/// Reads the five fields of a cron pattern; `SUN#1` is the first Sunday. Further ones are refused, for nobody sees
/// whether they are seconds or years, and so are names such as `@daily`.
///
/// # Errors
/// What is wrong: the number of fields, or the first one that no pattern could have.
pub fn parse(pattern: &str) -> Result<Cron, String> {
    let fields: Vec<&str> = pattern.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let plural = if fields.len() == 1 { "" } else { "s" };
        return Err(format!("it has {} field{plural}, not 5", fields.len()));
    }
    let is_wrong = |place: usize| {
        let mut alone = ["*"; FIELDS.len()];
        alone[place] = fields[place];
        Cron::from_str(&alone.join(" ")).is_err()
    };
    Cron::from_str(pattern).map_err(|error| match (0..FIELDS.len()).find(|&place| is_wrong(place)) {
        Some(place) => format!("{} cannot be \"{}\"", FIELDS[place], fields[place]),
        None => error.to_string().to_lowercase().trim_end_matches('.').to_owned(),
    })
}
