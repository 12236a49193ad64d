//! Moments for people to read: on whole seconds.

use jiff::Timestamp;

/// The second that has begun.
pub fn floor(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The next second, unless this one has just begun: what ends then is never over early.
pub fn ceil(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second() + i64::from(time.subsec_nanosecond() > 0)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_and_ends_on_a_second_holds_all_of_the_time_between() {
        for (text, begun, ends) in [
            ("2030-01-31T22:00:00.5Z", "2030-01-31T22:00:00Z", "2030-01-31T22:00:01Z"),
            ("2030-01-31T22:00:00Z", "2030-01-31T22:00:00Z", "2030-01-31T22:00:00Z"),
        ] {
            let (time, begun, ends): (Timestamp, _, _) =
                (text.parse().unwrap(), begun.parse().unwrap(), ends.parse().unwrap());
            assert_eq!((floor(time), ceil(time)), (begun, ends), "{text}");
        }
        assert_eq!((floor(Timestamp::MAX), ceil(Timestamp::MAX)).1, Timestamp::MAX);
    }
}
