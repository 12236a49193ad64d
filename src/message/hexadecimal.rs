//! Numbers in hexadecimal, lower case.

/// All digits of `number`, with the zeros before it.
pub(crate) fn digits(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (part, place) in text.as_chunks_mut::<8>().0.iter_mut().zip([96, 64, 32, 0]) {
        *part = eight_digits((number >> place) as u32);
    }
    text
}

/// Together: each half of a byte is given a byte of its own, and to that is added what makes it a digit.
fn eight_digits(number: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut halves = u64::from(number);
    for (shift, mask) in [(16, 0x0000_ffff_0000_ffff), (8, 0x00ff_00ff_00ff_00ff), (4, 0x0f0f_0f0f_0f0f_0f0f)] {
        halves = (halves << shift | halves) & mask;
    }
    let above_nine = (halves + EACH * 6) >> 4 & EACH;
    let to_letters = u64::from(b'a' - b'0' - 10);
    (halves + EACH * u64::from(b'0') + above_nine * to_letters).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_number_is_written_as_by_the_standard_library(number in any::<u128>()) {
            let (ours, theirs) = (digits(number), format!("{number:032x}"));
            prop_assert_eq!(ours.as_slice(), theirs.as_bytes());
        }
    }

    #[test]
    fn every_digit_is_its_own() {
        assert_eq!(&digits(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210), b"0123456789abcdeffedcba9876543210");
    }
}
