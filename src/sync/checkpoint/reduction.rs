//! Makes a checkpoint fit into a bound, so that the user's own work at the destination stays safe: nothing that is kept of
//! a folder ever says that a message was not copied, or was copied, when it is not so.

#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{Checkpoint, FolderState};
use crate::{error::Result, imap::UidSet};

/// A map or set of fewer ranges than this is not worth to lose what is known of a folder.
const FEW_RANGES: usize = 64;

/// So many numbers are written of a mark without exceptions.
const MARK_NUMBERS: usize = 4;

/// Of many folders, one of so many is reduced or dropped before it is tried again whether all fits.
const STEP_SHARE: usize = 16;

impl Checkpoint {
    /// [`Self::encode`] in at most `most` bytes. Where the whole is larger, these go, until it fits:
    ///
    /// 1. which copies nobody has looked at;
    /// 2. the maps of the largest folders up to their high-water marks, one after the other: see
    ///    [`super::high_water_mark::HighWaterMark`];
    /// 3. lists of what message rules left out, and the tails of such folders;
    /// 4. what is known of large folders that can have no mark, but for samples: such a folder is matched as if there were no
    ///    checkpoint;
    /// 5. views, and the folders with the fewest messages, which are counted.
    ///
    /// One folder of 200,000 messages, all of them seen, takes under 1 KB when no UID is missing, 20 KB when each 20th is
    /// missing at random, and 131 KB when every second is (measured by a test; 400,000 coin tosses are 50 KB by
    /// themselves). A status has room for 196 KB, in base64.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_within(&self, most: usize) -> Result<Vec<u8>> {
        let encoded = self.encode()?;
        if encoded.len() <= most {
            return Ok(encoded);
        }
        let mut smaller = self.clone();
        // What nobody has looked at can be told only while there is room to say so.
        for state in smaller.folders.values_mut() {
            state.unseen = UidSet::default();
        }
        let encoded = smaller.encode()?;
        if encoded.len() <= most {
            return Ok(encoded);
        }
        let mut length = encoded.len();
        for reduce in [FolderState::reduce, FolderState::reduce_further, keep_samples_of_large] {
            let encoded = smaller.reduce_folders(reduce, length, most)?;
            if encoded.len() <= most {
                return Ok(encoded);
            }
            length = encoded.len();
        }
        smaller.views.clear();
        smaller.drop_folders(most)
    }

    /// [`Self::encode_within`] as text of at most `most` characters.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub(crate) fn encode_text_within(&self, most: usize) -> Result<String> {
        Ok(STANDARD_NO_PAD.encode(self.encode_within(most / 4 * 3)?))
    }

    /// Reduces the largest folders, one after the other, until all fits, or none is left. `length` is that of all encoded
    /// before.
    fn reduce_folders(&mut self, reduce: fn(&mut FolderState), mut length: usize, most: usize) -> Result<Vec<u8>> {
        let mut by_size: Vec<(usize, Vec<u8>)> =
            self.folders.iter().map(|(name, state)| (ranges(state), name.clone())).collect();
        by_size.sort();
        let all: usize = by_size.iter().map(|(size, _)| size).sum::<usize>().max(1);
        let (mut left, mut untried, step) = (all, 0, by_size.len() / STEP_SHARE);
        // As long as names are few, the encoded length goes with the number of ranges.
        while let Some((size, name)) = by_size.pop() {
            if let Some(state) = self.folders.get_mut(&name) {
                let mut reduced = state.clone();
                reduce(&mut reduced);
                // What is small already loses nothing.
                if ranges(&reduced) < ranges(state) {
                    *state = reduced;
                }
            }
            left = left.saturating_sub(size);
            untried += 1;
            let may_fit = untried > step && left.saturating_mul(length) <= all.saturating_mul(most);
            if by_size.is_empty() || may_fit {
                untried = 0;
                let encoded = self.encode()?;
                if encoded.len() <= most || by_size.is_empty() {
                    return Ok(encoded);
                }
                length = length.max(encoded.len());
            }
        }
        self.encode()
    }

    /// Thousands of folders: their names alone are too much. Those with the fewest messages are dropped, and counted. What
    /// was not copied is kept as long as it can be. In the end the fingerprint alone is left.
    fn drop_folders(mut self, most: usize) -> Result<Vec<u8>> {
        let weight = |state: &FolderState| (!state.set_aside.is_empty(), state.copied_count());
        let mut names: Vec<_> = self.folders.iter().map(|(name, state)| (weight(state), name.clone())).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        loop {
            let encoded = self.encode()?;
            if encoded.len() <= most {
                return Ok(encoded);
            }
            if names.is_empty() {
                break;
            }
            let beyond = names.len() * (encoded.len() - most) / encoded.len();
            let kept = names.len() - beyond.max(names.len().div_ceil(STEP_SHARE)).min(names.len());
            for (_, name) in names.split_off(kept) {
                let dropped = self.folders.remove(&name);
                self.dropped_folders += u64::from(dropped.is_some_and(|state| state.copied_count() > 0));
            }
        }
        let Self { fingerprint, dropped_folders, .. } = self;
        Self { fingerprint, dropped_folders, ..Self::default() }.encode()
    }
}

/// So many numbers, about, are written of a folder.
fn ranges(state: &FolderState) -> usize {
    let mark = state.mark().map_or(0, |mark| MARK_NUMBERS + mark.exceptions.ranges().len() * 2);
    let flags = state.flags.values().map(|set| set.ranges().len()).sum::<usize>();
    let moved = state.moved.iter().map(|moved| moved.map.runs().len()).sum::<usize>();
    (state.map.runs().len() + moved) * 4 + (flags + state.doubted.ranges().len()) * 2 + mark
}

fn keep_samples_of_large(state: &mut FolderState) {
    let exceptions = state.mark().map_or(0, |mark| mark.exceptions.ranges().len());
    if state.map.runs().len() + exceptions >= FEW_RANGES {
        state.keep_samples();
    }
}
