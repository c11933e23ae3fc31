//! Looks for messages that are not in their own destination folder in the destination's other folders, before they are
//! copied: their user may have moved them there. Only where no checkpoint counts, and after all folders were matched with
//! their own ones, so that no copy is taken from its own message.

use std::collections::BTreeMap;

use super::{
    connection_pair::ConnectionPair,
    failure_bisect::FailureBisector,
    fetch_facts::{fetch_hashes, message_id_of},
    identity::{IdentityFacts, MessageId},
    job::FolderSyncContext,
    matched_folders::MatchedFolder,
    message_limit::{ListingCommand, fetch_each, list_each},
    moved_match::{MovedCandidates, MovedCopies, MovedKey, PlacedMessage, ReadMessage, match_moved},
    pair_connector::PairConnector,
    retry_waits::{RetryBackoff, RetryWaits, WaitOutcome},
    uid::{DestinationUid, SourceUid},
    uid_map::{CopyOrigin, UidMap},
};
use crate::{
    error::{Error, Result},
    imap::{
        Session, Uid, UidSet,
        account_listing::is_same_folder_name,
        response::FetchResponse,
        select::{queue_examine, wait_for_selected},
    },
};

/// What is asked of each message.
const FACTS: &str = "(UID INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";
/// A folder that fails so often is left out.
const MAX_TRIES: u32 = 3;

/// A folder of the destination in which its user may have put something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtherFolder {
    /// The raw name.
    pub raw: Vec<u8>,
    /// The decoded name.
    pub name: String,
}

/// A message: the number of its source folder, and its UID.
type SourcePlace = (usize, SourceUid);
/// The same of a folder of the destination.
type CopyPlace = (usize, DestinationUid);

/// Messages of one source folder that were found in one other folder of the destination.
#[derive(Debug, Clone)]
pub(crate) struct FoundElsewhere {
    /// The raw name of the source folder.
    pub source_raw: Vec<u8>,
    /// The decoded name of the other folder.
    pub name: String,
    /// Where they are.
    pub copies: MovedCopies,
    /// What they amount to, bytes.
    pub bytes: u64,
}

/// The steps of a search, each of which is done again on another connection when its own ends.
#[derive(Debug, Clone, Copy)]
enum SearchStep {
    /// What is left of a source folder is listed.
    ListLeft(usize),
    /// A folder of the destination is listed.
    ListOther(usize),
    /// Of a source folder, what has something that looks like it is read.
    ReadLeft(usize),
    /// Of a folder of the destination, what looks like something is read.
    ReadOther(usize),
}

/// A search in other folders.
pub(crate) struct MovedSearch<'a> {
    pub shared: &'a FolderSyncContext,
    pub connector: &'a PairConnector,
    pub waits: &'a RetryWaits,
    /// The connections that it uses, and may leave.
    pub pair: Option<ConnectionPair>,
    /// All folders that were matched, by raw source name.
    pub matched: &'a BTreeMap<Vec<u8>, MatchedFolder>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// What a search knows by now.
struct SearchState<'a> {
    sources: Vec<(&'a Vec<u8>, &'a MatchedFolder)>,
    others: &'a [OtherFolder],
    /// UIDVALIDITY of each of the others.
    validities: Vec<u32>,
    wanted: Vec<PlacedMessage<SourcePlace>>,
    candidates: MovedCandidates<SourcePlace, CopyPlace>,
    read: Vec<ReadMessage<SourcePlace>>,
    read_copies: Vec<ReadMessage<CopyPlace>>,
}

impl MovedSearch<'_> {
    /// Looks in `others` for what is left of the folders that say so. None when it was asked to stop.
    ///
    /// # Errors
    /// When no connections can be made.
    pub(crate) async fn run(&mut self, others: &[OtherFolder]) -> Result<Option<Vec<FoundElsewhere>>> {
        let scope = self.shared.spec.adopt;
        let is_sought = |folder: &MatchedFolder| scope.looks_elsewhere(folder.found, folder.left.len());
        let sources: Vec<_> =
            self.matched.iter().filter(|(_, folder)| folder.has_no_checkpoint && is_sought(folder)).collect();
        let mut state = SearchState {
            validities: vec![0; others.len()],
            sources,
            others,
            wanted: Vec::new(),
            candidates: MovedCandidates::new(Vec::new()),
            read: Vec::new(),
            read_copies: Vec::new(),
        };
        if state.sources.is_empty() || others.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let (source_count, other_count) = (state.sources.len(), others.len());
        if self.run_steps(&mut state, (0..source_count).map(SearchStep::ListLeft)).await?.is_none() {
            return Ok(None);
        }
        state.candidates = MovedCandidates::new(std::mem::take(&mut state.wanted));
        let reads = (0..source_count).map(SearchStep::ReadLeft).chain((0..other_count).map(SearchStep::ReadOther));
        let steps = (0..other_count).map(SearchStep::ListOther).chain(reads);
        Ok(self.run_steps(&mut state, steps).await?.map(|()| state.into_found()))
    }

    async fn run_steps(
        &mut self,
        state: &mut SearchState<'_>,
        steps: impl Iterator<Item = SearchStep>,
    ) -> Result<Option<()>> {
        for step in steps {
            if !self.run_step(state, step).await? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Does one step, on as many connections as it takes; false when it was asked to stop.
    async fn run_step(&mut self, state: &mut SearchState<'_>, step: SearchStep) -> Result<bool> {
        let mut backoff = self.waits.backoff();
        let mut tries = 0;
        loop {
            if !self.connect(&mut backoff).await? {
                return Ok(false);
            }
            let Some(pair) = &mut self.pair else { continue };
            let Err(error) = state.run(step, self.shared, self.matched, pair).await else { return Ok(true) };
            // What else comes on these connections is not known.
            self.pair = None;
            tries += 1;
            let name = state.name(step).to_owned();
            tracing::info!(folder = name.as_str(), error = %error, "looking for moved copies failed");
            let what = error.what.clone();
            let waited =
                if tries < MAX_TRIES { self.waits.wait_before_retry(error, &mut backoff).await } else { Err(error) };
            match waited {
                Ok(WaitOutcome::Out) => {}
                Ok(WaitOutcome::Stopped) => return Ok(false),
                Err(_) => {
                    state.leave_out(step);
                    self.notes.push(format!(
                        "{name} was left out when moved messages were looked for in other folders: {what}"
                    ));
                    return Ok(true);
                }
            }
        }
    }

    /// Makes connections where there are none; false when it was asked to stop.
    async fn connect(&mut self, backoff: &mut RetryBackoff) -> Result<bool> {
        while self.pair.is_none() {
            match self.connector.connect_unless(&self.shared.stop).await {
                Ok(Some(pair)) => self.pair = Some(pair),
                Ok(None) => return Ok(false),
                Err(error) => {
                    if self.waits.wait_before_retry(error, backoff).await? == WaitOutcome::Stopped {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(!self.shared.stop.is_cancelled())
    }
}

impl SearchState<'_> {
    fn name(&self, step: SearchStep) -> &str {
        match step {
            SearchStep::ListLeft(at) | SearchStep::ReadLeft(at) => {
                self.sources.get(at).map_or("", |(_, folder)| folder.source_name.as_str())
            }
            SearchStep::ListOther(at) | SearchStep::ReadOther(at) => {
                self.others.get(at).map_or("", |other| other.name.as_str())
            }
        }
    }

    /// Forgets what a step found before it failed.
    fn leave_out(&mut self, step: SearchStep) {
        match step {
            SearchStep::ListLeft(at) => self.wanted.retain(|message| message.place.0 != at),
            SearchStep::ListOther(at) => self.candidates.forget(|place| place.0 == at),
            SearchStep::ReadLeft(at) => self.read.retain(|message| message.place.0 != at),
            SearchStep::ReadOther(at) => self.read_copies.retain(|message| message.place.0 != at),
        }
    }

    async fn run(
        &mut self,
        step: SearchStep,
        shared: &FolderSyncContext,
        matched: &BTreeMap<Vec<u8>, MatchedFolder>,
        pair: &mut ConnectionPair,
    ) -> Result<()> {
        self.leave_out(step);
        match step {
            SearchStep::ListLeft(at) => self.list_left(at, &mut pair.source).await,
            SearchStep::ListOther(at) => self.list_other(at, shared, matched, &mut pair.destination).await,
            SearchStep::ReadLeft(at) => {
                let Some((raw, folder)) = self.sources.get(at).copied() else { return Ok(()) };
                let wanted = by_uid(self.candidates.wanted(), at);
                let (name, validity) = ((raw.as_slice(), folder.source_name.as_str()), folder.source_uid_validity);
                let read = read_bodies(&mut pair.source, name, validity, at, wanted).await?;
                self.read.extend(read);
                Ok(())
            }
            SearchStep::ReadOther(at) => {
                let (Some(other), Some(validity)) = (self.others.get(at), self.validities.get(at).copied()) else {
                    return Ok(());
                };
                let found = by_uid(self.candidates.found().iter(), at);
                let read = read_bodies(&mut pair.destination, (&other.raw, &other.name), validity, at, found).await?;
                self.read_copies.extend(read);
                Ok(())
            }
        }
    }

    /// Lists what is left of a source folder.
    async fn list_left(&mut self, at: usize, session: &mut Session) -> Result<()> {
        let Some((raw, folder)) = self.sources.get(at).copied() else { return Ok(()) };
        examine(session, (raw, &folder.source_name), Some(folder.source_uid_validity)).await?;
        let wanted = &mut self.wanted;
        fetch_each(session, &folder.left, (FACTS, "to list messages"), |fetch| {
            if let Some((uid, key)) = key_of(&fetch)
                && folder.left.contains(uid)
            {
                wanted.push(PlacedMessage { place: (at, uid), key });
            }
        })
        .await?;
        // A server may tell of a message twice.
        self.wanted.sort_by_key(|message| message.place);
        self.wanted.dedup_by_key(|message| message.place);
        Ok(())
    }

    /// Lists a folder of the destination; of what comes only that is kept which looks like a message that is left. What is
    /// another message's copy already is passed over.
    async fn list_other(
        &mut self,
        at: usize,
        shared: &FolderSyncContext,
        matched: &BTreeMap<Vec<u8>, MatchedFolder>,
        session: &mut Session,
    ) -> Result<()> {
        let Some(other) = self.others.get(at) else { return Ok(()) };
        let (validity, exists) = examine(session, (&other.raw, &other.name), None).await?;
        if let Some(known) = self.validities.get_mut(at) {
            *known = validity;
        }
        if exists == 0 {
            return Ok(());
        }
        let recorded = shared.live_checkpoint.read(|checkpoint| checkpoint.copies_in(&other.raw, validity));
        let own = matched.values().filter(|folder| {
            is_same_folder_name(&folder.destination_raw, &other.raw) && folder.destination_uid_validity == validity
        });
        let mut taken = own.fold(recorded, |all, folder| all.union(&folder.copies));
        let candidates = &mut self.candidates;
        list_each(session, &ListingCommand::fetch(1, None, FACTS), |fetch| {
            if let Some((uid, key)) = key_of(&fetch)
                && !taken.contains(uid)
            {
                candidates.add(PlacedMessage { place: (at, uid), key });
                // A server may tell of a message twice.
                taken.insert(uid);
            }
        })
        .await
    }

    fn into_found(self) -> Vec<FoundElsewhere> {
        let Self { sources, others, validities, read, read_copies, .. } = self;
        let is_other = |(source, _): SourcePlace, (other, _): CopyPlace| {
            let both = sources.get(source).zip(others.get(other));
            both.is_some_and(|((_, folder), other)| !is_same_folder_name(&folder.destination_raw, &other.raw))
        };
        let sizes: BTreeMap<SourcePlace, u64> =
            read.iter().map(|message| (message.place, message.key.size())).collect();
        let mut found: BTreeMap<(usize, usize), FoundElsewhere> = BTreeMap::new();
        for (source, copy) in match_moved(&read, &read_copies, is_other) {
            let (Some((raw, _)), Some(other)) = (sources.get(source.0), others.get(copy.0)) else { continue };
            let entry = found.entry((source.0, copy.0)).or_insert_with(|| FoundElsewhere {
                source_raw: (*raw).clone(),
                name: other.name.clone(),
                copies: MovedCopies {
                    folder: other.raw.clone(),
                    uid_validity: validities.get(copy.0).copied().unwrap_or(0),
                    map: UidMap::new(),
                },
                bytes: 0,
            });
            entry.copies.map.push(source.1, Some(copy.1), CopyOrigin::Adopted);
            entry.bytes += sizes.get(&source).copied().unwrap_or(0);
        }
        found.into_values().collect()
    }
}

fn by_uid<'m, U: Uid + 'm>(
    messages: impl Iterator<Item = &'m PlacedMessage<(usize, U)>>,
    folder: usize,
) -> BTreeMap<U, MovedKey> {
    messages.filter(|message| message.place.0 == folder).map(|message| (message.place.1, message.key)).collect()
}

/// Opens a folder for reading: its UIDVALIDITY and how many messages it holds. It must have the UIDVALIDITY that it had
/// `before`.
async fn examine(session: &mut Session, (raw, name): (&[u8], &str), before: Option<u32>) -> Result<(u32, u32)> {
    let tag = queue_examine(session, raw);
    let selected = wait_for_selected(session, tag, name).await?;
    if before.is_some_and(|before| before != selected.uid_validity) {
        return Err(session.with_endpoint(Error::protocol(format!("{name} was replaced during the sync"))));
    }
    Ok((selected.uid_validity, selected.exists))
}

/// Reads the bodies of messages; what does not come is nobody's copy.
async fn read_bodies<U: Uid>(
    session: &mut Session,
    folder: (&[u8], &str),
    uid_validity: u32,
    number: usize,
    messages: BTreeMap<U, MovedKey>,
) -> Result<Vec<ReadMessage<(usize, U)>>> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    examine(session, folder, Some(uid_validity)).await?;
    let uids: UidSet<U> = messages.keys().copied().collect();
    let listed = |uid| messages.get(&uid).map(MovedKey::size);
    let hashes = fetch_hashes(session, &uids, listed, &mut FailureBisector::default()).await?;
    let read = hashes
        .into_iter()
        .filter_map(|(uid, hash)| Some(ReadMessage { place: (number, uid), key: *messages.get(&uid)?, hash }));
    Ok(read.collect())
}

/// UID and key in an answer to [`FACTS`].
fn key_of<U: Uid>(fetch: &FetchResponse) -> Option<(U, MovedKey)> {
    let FetchResponse { uid, size, internal_date, .. } = fetch;
    let message_id: Option<MessageId> = message_id_of::<U>(fetch).map(|(_, id)| id);
    let uid = U::from_number((*uid)?);
    let epoch = internal_date.as_ref()?.as_ref().map(|date| date.epoch);
    Some((uid, MovedKey::of(&IdentityFacts { uid, message_id, epoch, size: *size })?))
}
