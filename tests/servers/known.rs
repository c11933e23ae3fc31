//! What does not work today, and why: whoever mends it removes its entry, which the tests then ask for.

use mailferry_testkit::ServerMake;

use crate::features::Feature;

/// A fault of the product that is known.
#[derive(Debug, Clone, Copy)]
pub struct KnownFault {
    /// What happens, for the table.
    pub what: &'static str,
    /// Each of its complaints holds both texts of one of these; anything else is new.
    pub complaints: &'static [(&'static str, &'static str)],
}

const CHANGED: &str = "content differs, untold";
const DATED: &str = "internalDate differs, untold";
const AGAIN: &str = "copied again";

const MASKED: KnownFault = KnownFault {
    what: "Cyrus stores 8-bit bytes in a header as `X`, and the report does not say so.",
    complaints: &[(CHANGED, "\"Subject: Gr")],
};
const LONE_CR: KnownFault = KnownFault {
    what: "Courier drops a CR in the middle of a line, and the report does not say so.",
    complaints: &[(CHANGED, "\"Subject: cr\\r")],
};
const LINE_END: KnownFault = KnownFault {
    what: "Courier adds a line end to a message whose lines end with LF at the source, and the report does not say so.",
    complaints: &[(CHANGED, "")],
};
const REWRITTEN: KnownFault = KnownFault {
    what: "The destination changes messages without a proper header, and the report does not say so.",
    complaints: &[(CHANGED, "")],
};
const NOON: KnownFault = KnownFault {
    what: "GreenMail takes half past noon for half past midnight, and the report does not say so.",
    complaints: &[(DATED, "")],
};
const DOUBLED: KnownFault = KnownFault {
    what: "A run without a checkpoint copies messages again that the destination stored with another content.",
    complaints: &[(AGAIN, "")],
};
const DATES_DOUBLED: KnownFault = KnownFault {
    what: "A run without a checkpoint copies messages again that have no Message-ID and were stored with another date.",
    complaints: &[(AGAIN, "Subject: the first"), (AGAIN, "Subject: 1969"), (AGAIN, "Subject: 2039")],
};
const BARE_LF: KnownFault = KnownFault {
    what: "pymap delivers lines that end with LF, and Cyrus refuses such messages: nothing is copied, and the run says so.",
    complaints: &[("", "")],
};
const PYMAP_NAMES: KnownFault = KnownFault {
    what: "pymap makes a level of a dot in a folder's name and forgets that a name ended with a blank: the report does not say so.",
    complaints: &[("dot.ted", ""), ("dot/ted", ""), ("trailing ", "not subscribed")],
};

/// The faults of a feature between two servers.
pub fn known_faults(from: ServerMake, to: ServerMake, feature: Feature) -> Vec<KnownFault> {
    use ServerMake::{Courier, Cyrus, Dovecot, GoImap, GreenMail, Pymap};
    match (feature, from, to) {
        (_, Pymap, Cyrus) => vec![BARE_LF],
        (Feature::OddMessages, Cyrus, Cyrus)
        | (Feature::OddMessages, Courier, Courier)
        | (Feature::OddMessages, GreenMail, GreenMail)
        | (Feature::OddMessages, Pymap, GoImap | Pymap) => vec![],
        (Feature::OddMessages, GreenMail, Cyrus) => vec![MASKED, DATES_DOUBLED],
        (Feature::OddMessages, _, Cyrus) => vec![MASKED],
        (Feature::OddMessages, Pymap, Courier) => vec![LINE_END, DATES_DOUBLED],
        (Feature::OddMessages, GreenMail, Courier) => vec![LONE_CR, DATES_DOUBLED],
        (Feature::OddMessages, _, Courier) => vec![LONE_CR],
        (Feature::OddMessages, Pymap, GreenMail) => vec![DOUBLED],
        (Feature::OddMessages, _, GreenMail) => vec![REWRITTEN, NOON, DOUBLED],
        (Feature::OddMessages, GoImap, GoImap) => vec![REWRITTEN],
        (Feature::OddMessages, _, GoImap | Pymap) => vec![REWRITTEN, DOUBLED],
        (Feature::OddMessages, GreenMail | Pymap, Dovecot) => vec![DATES_DOUBLED],
        (Feature::OddNames, _, Pymap) if from != Pymap => vec![PYMAP_NAMES],
        _ => vec![],
    }
}

/// The complaints that no known fault explains, and the known faults that no complaint shows any more.
pub fn unexplained(faults: &[KnownFault], complaints: &[String]) -> Vec<String> {
    let shows = |fault: &KnownFault, complaint: &String| {
        fault.complaints.iter().any(|(kind, which)| complaint.contains(kind) && complaint.contains(which))
    };
    let new = complaints.iter().filter(|complaint| !faults.iter().any(|fault| shows(fault, complaint))).cloned();
    let gone = faults.iter().filter(|fault| !complaints.iter().any(|complaint| shows(fault, complaint)));
    new.chain(gone.map(|fault| format!("known, and no longer so: {}", fault.what))).collect()
}
