//! What tests by chance share: which seeds they try, and how what two folders hold is counted.

use std::{collections::BTreeMap, ops::Range, panic::resume_unwind};

use crate::fake::Mail;

/// Tries seeds one after the other: this part (counted from 0) of so many, of the usual seeds. Of other seeds where the
/// variable names some (`29`, or `1000..5000`).
pub async fn try_seeds<T, F>(variable: &str, (part, parts): (u64, u64), usual: Range<u64>, try_seed: T)
where
    T: Fn(u64) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let chosen = std::env::var(variable).ok().map(|seeds| match seeds.split_once("..") {
        Some((first, end)) => first.parse().unwrap()..end.parse().unwrap(),
        None => seeds.parse::<u64>().map(|seed| seed..seed + 1).unwrap(),
    });
    let mut failed = Vec::new();
    let mut first = None;
    for seed in chosen.unwrap_or(usual).filter(|seed| seed % parts == part) {
        if let Err(error) = tokio::spawn(try_seed(seed)).await {
            failed.push(seed);
            first.get_or_insert(error);
        }
    }
    if let Some(first) = first {
        eprintln!("{variable}: these seeds failed: {failed:?}");
        resume_unwind(first.into_panic());
    }
}

/// By `key`: how many more `left` has than `right`.
pub fn surplus<'m, K: Ord>(left: &'m [Mail], right: &'m [Mail], key: impl Fn(&'m Mail) -> K) -> BTreeMap<K, usize> {
    let mut counts: BTreeMap<K, i64> = BTreeMap::new();
    for (mails, step) in [(left, 1), (right, -1)] {
        for mail in mails {
            *counts.entry(key(mail)).or_default() += step;
        }
    }
    counts.into_iter().filter_map(|(key, count)| Some((key, usize::try_from(count).ok().filter(|n| *n > 0)?))).collect()
}
