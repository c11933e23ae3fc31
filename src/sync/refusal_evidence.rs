//! What refusals mean while no ordinary message passes: is it the server, or are all that are left refused for their own
//! sake? Pure.

/// After so many runs that ended because the destination took nothing of a folder, it may well be right.
const UNWELL_RUNS: u32 = 2;
/// So many messages are not sent to a server that may be unwell.
const MANY_LEFT: usize = 50;

/// What is known while the destination refuses and no ordinary message passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusalEvidence {
    /// The refusals say themselves that they pass.
    pub is_passing: bool,
    /// Some other message was accepted, in this folder or another, since the first refusal.
    pub accepted: bool,
    /// Many different messages were refused.
    pub many: bool,
    /// The first refusal is a while ago.
    pub for_long: bool,
    /// Messages of the folder that were not tried.
    pub left: usize,
    /// Runs in a row that ended because the destination took nothing of this folder.
    pub earlier_runs: u32,
}

/// What refusals mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalJudgement {
    /// It may still be the server: it is waited for.
    Wait,
    /// The server takes other messages, or there are too few to tell: on without controls.
    GoOn,
    /// The server takes nothing at all.
    Unwell,
}

impl RefusalEvidence {
    /// Decides. Where few messages are left, waiting any longer finds out nothing; where many are, they are not all sent to
    /// a server that may be unwell.
    #[must_use]
    pub(crate) fn judge(self) -> RefusalJudgement {
        let again = self.earlier_runs >= UNWELL_RUNS;
        let (well, few_left) = (self.accepted || again, self.left < MANY_LEFT || again);
        match (well, self.is_passing) {
            (true, false) if few_left => RefusalJudgement::GoOn,
            (true, false) => RefusalJudgement::Wait,
            _ if !self.for_long => RefusalJudgement::Wait,
            (_, true) if (well || !self.many) && few_left => RefusalJudgement::GoOn,
            (_, true) => RefusalJudgement::Wait,
            (false, false) if self.many => RefusalJudgement::Unwell,
            (false, false) => RefusalJudgement::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_control_a_server_that_takes_nothing_is_unwell_and_few_refusals_tell_nothing() {
        let known = RefusalEvidence {
            is_passing: false,
            accepted: false,
            many: true,
            for_long: true,
            left: 500,
            earlier_runs: 0,
        };
        assert_eq!(known.judge(), RefusalJudgement::Unwell);
        assert_eq!(RefusalEvidence { for_long: false, ..known }.judge(), RefusalJudgement::Wait);
        assert_eq!(RefusalEvidence { many: false, ..known }.judge(), RefusalJudgement::GoOn);
        assert_eq!(RefusalEvidence { is_passing: true, ..known }.judge(), RefusalJudgement::Wait);
        // It took others: many more are not sent to it before it is well, few are.
        assert_eq!(RefusalEvidence { accepted: true, ..known }.judge(), RefusalJudgement::Wait);
        assert_eq!(RefusalEvidence { accepted: true, left: 3, ..known }.judge(), RefusalJudgement::GoOn);
        // It took nothing of this folder in run after run.
        assert_eq!(RefusalEvidence { earlier_runs: UNWELL_RUNS, ..known }.judge(), RefusalJudgement::GoOn);
    }
}
