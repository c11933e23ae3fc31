//! Any text as a sequence set of UIDs. It may be refused; what is read is written in commands of any length, and read
//! again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailferry::imap::uid_set::UidSet;

fuzz_target!(|text: &str| {
    let Some(set) = UidSet::parse(text) else { return };
    assert!(set.len() == 0 || (set.first() <= set.last() && set.last().is_some_and(|last| set.contains(last))));
    for most in [1, 30, 8000] {
        let chunks = set.chunks(most).map(|chunk| UidSet::parse(&chunk).unwrap());
        let joined = chunks.fold(UidSet::default(), |joined, chunk| joined.union(&chunk));
        assert_eq!(joined.ranges(), set.ranges());
    }
});
