//! Bits out of bits. The only randomness is the seed that came in.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }
}

/// 2⁶⁴ divided by the golden ratio: its multiples fill the circle evenly.
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's finaliser: every input bit reaches every output bit.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// True in `permille` of 1000 cases.
pub(super) fn chance(bits: u64, permille: u16) -> bool {
    ((bits >> 32) * 1000) >> 32 < u64::from(permille)
}
