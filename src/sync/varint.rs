//! Numbers and UID sets in as few bytes as possible: variable-length integers of small differences.

use crate::imap::{Uid, UidSet};

/// Appends `value`, 7 bits per byte, the lowest first; the top bit says that more follow (LEB128).
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Appends the way from `from` to `to`: steps up are even, steps down odd (zigzag), so that short ways are short.
pub(super) fn put_delta(bytes: &mut Vec<u8>, from: u64, to: u64) {
    put_varint(bytes, if to >= from { (to - from) << 1 } else { ((from - to) << 1) - 1 });
}

/// Reads what [`put_varint`] and [`put_delta`] wrote; `None` at the end and for what they never write.
pub(super) struct VarintReader<'a>(pub(super) &'a [u8]);

impl VarintReader<'_> {
    pub(super) fn read_varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn read_delta(&mut self, from: u64) -> Option<u64> {
        let step = self.read_varint()?;
        if step & 1 == 0 { from.checked_add(step >> 1) } else { from.checked_sub((step >> 1) + 1) }
    }

    pub(super) fn read_u32(&mut self) -> Option<u32> {
        self.read_varint()?.try_into().ok()
    }
}

/// A UID set as bytes: for each range the distance from the one before, and its length.
pub(super) fn encode_uids<U: Uid>(uids: &UidSet<U>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut previous = 0;
    for (low, high) in uids.ranges().iter().map(|(low, high)| (low.number(), high.number())) {
        put_varint(&mut bytes, u64::from(low - previous));
        put_varint(&mut bytes, u64::from(high - low));
        previous = high;
    }
    bytes
}

/// The UID set of [`encode_uids`]; `None` for anything that it does not write.
pub(super) fn decode_uids<U: Uid>(bytes: &[u8]) -> Option<UidSet<U>> {
    let mut reader = VarintReader(bytes);
    let mut uids = UidSet::new();
    let mut previous = 0_u32;
    while !reader.0.is_empty() {
        let low = previous.checked_add(reader.read_u32()?)?;
        let high = low.checked_add(reader.read_u32()?)?;
        if low <= previous {
            return None;
        }
        uids.insert_range(U::from_number(low), U::from_number(high));
        previous = high;
    }
    Some(uids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_steps_round_trip(a in any::<u64>(), from in 0..u64::from(u32::MAX) + 2, to in 0..u64::from(u32::MAX) + 2) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, a);
            put_delta(&mut bytes, from, to);
            let mut reader = VarintReader(&bytes);
            prop_assert_eq!(reader.read_varint(), Some(a));
            prop_assert_eq!(reader.read_delta(from), Some(to));
            prop_assert_eq!(reader.read_varint(), None);
        }

        #[test]
        fn uid_sets_round_trip(ranges in proptest::collection::vec((1..u32::MAX, 0..1000_u32), 0..50)) {
            let uids = UidSet::from_ranges(ranges.into_iter().map(|(low, more)| (low, low.saturating_add(more))));
            prop_assert_eq!(decode_uids(&encode_uids(&uids)), Some(uids));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(uids) = decode_uids::<u32>(&bytes) {
                prop_assert_eq!(decode_uids(&encode_uids(&uids)), Some(uids));
            }
        }
    }
}
