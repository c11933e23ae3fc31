//! What does not work today, and why: whoever mends it removes its entry, which the tests then ask for.

use mailferry_testkit::ServerMake;

use crate::features::Feature;

/// A fault that is known: of the product, or of a server, where no client can prevent it.
#[derive(Debug, Clone, Copy)]
pub struct KnownFault {
    /// What happens, for the table.
    pub what: &'static str,
    /// Each of its complaints holds both texts of one of these; anything else is new.
    pub complaints: &'static [(&'static str, &'static str)],
    /// Whether it shows at times only.
    pub sometimes: bool,
}

const TWICE: KnownFault = KnownFault {
    what: "At times one message is listed twice after a run was killed: pymap gives its file two UIDs when a session opens the folder meanwhile.",
    complaints: &[("one file, two UIDs", "too many")],
    sometimes: true,
};

/// The faults of a feature between two servers.
pub fn known_faults(from: ServerMake, to: ServerMake, feature: Feature) -> Vec<KnownFault> {
    match (feature, from, to) {
        (Feature::Resume, _, ServerMake::Pymap) => vec![TWICE],
        _ => Vec::new(),
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
