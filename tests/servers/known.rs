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
    /// Whether it shows at times only.
    pub sometimes: bool,
}

const CHANGED: &str = "content differs, untold";
const AGAIN: &str = "copied again";

const REWRITTEN: KnownFault = KnownFault {
    what: "The destination changes messages without a proper header, and the report does not say so.",
    complaints: &[(CHANGED, "")],
    sometimes: false,
};
const DOUBLED: KnownFault = KnownFault {
    what: "A run without a checkpoint copies messages again that the destination stored with another content.",
    complaints: &[(AGAIN, "")],
    sometimes: false,
};
const DATES_DOUBLED: KnownFault = KnownFault {
    what: "A run without a checkpoint copies messages again that have no Message-ID and were stored with another date.",
    complaints: &[(AGAIN, "Subject: the first"), (AGAIN, "Subject: 1969"), (AGAIN, "Subject: 2039")],
    sometimes: false,
};
const ORDER: KnownFault = KnownFault {
    what: "A message that go-imap delivers empty is copied after newer ones, and the report does not say so.",
    complaints: &[("in another order", "")],
    sometimes: false,
};
const TWICE: KnownFault = KnownFault {
    what: "At times one message is there twice after a run was killed.",
    complaints: &[("too many", "<many.")],
    sometimes: true,
};
const BARE_LF: KnownFault = KnownFault {
    what: "pymap delivers lines that end with LF, and Cyrus refuses such messages: nothing is copied, and the run says so.",
    complaints: &[("", "")],
    sometimes: false,
};
const PYMAP_NAMES: KnownFault = KnownFault {
    what: "pymap makes a level of a dot in a folder's name and forgets that a name ended with a blank: the report does not say so.",
    complaints: &[("dot.ted", ""), ("dot/ted", ""), ("trailing ", "not subscribed")],
    sometimes: false,
};

/// The faults of a feature between two servers.
pub fn known_faults(from: ServerMake, to: ServerMake, feature: Feature) -> Vec<KnownFault> {
    use ServerMake::{Courier, Cyrus, Dovecot, GoImap, GreenMail, Pymap};
    match (feature, from, to) {
        (_, Pymap, Cyrus) => vec![BARE_LF],
        (Feature::OddMessages, GreenMail | Pymap, Dovecot | Cyrus | Courier) => vec![DATES_DOUBLED],
        (Feature::OddMessages, GreenMail, GreenMail) | (Feature::OddMessages, Pymap, GoImap | Pymap) => vec![],
        (Feature::OddMessages, GoImap, GoImap) => vec![ORDER],
        (Feature::OddMessages, GoImap, GreenMail) => vec![ORDER, DOUBLED],
        (Feature::OddMessages, _, GoImap) | (Feature::OddMessages, Cyrus, GreenMail) => vec![REWRITTEN, DOUBLED],
        (Feature::OddMessages, _, GreenMail | Pymap) => vec![DOUBLED],
        (Feature::Resume, _, Pymap) => vec![TWICE],
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
    let gone =
        faults.iter().filter(|fault| !fault.sometimes && !complaints.iter().any(|complaint| shows(fault, complaint)));
    new.chain(gone.map(|fault| format!("known, and no longer so: {}", fault.what))).collect()
}
