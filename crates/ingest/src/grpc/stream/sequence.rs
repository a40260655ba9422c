//! Sequence numbers of a spool: what is missing is recorded as lost, counted by the numbers themselves.

use connlog_model::clock::Timestamp;
use connlog_model::identity::AgentIdentity;
use connlog_model::limits::{MAX_REASON_BYTES, clean_text};
use connlog_proto::v1;
use connlog_store::{Hole, LostRecord};
use uuid::Uuid;

use crate::parse::{Invalid, any_time};

/// Namespace of the ids of losses. Fixed for ever: a replay must name the record that it made before.
const LOSS_NAMESPACE: Uuid = Uuid::from_u128(0x9a40_71f3_0c2d_4d5b_8e66_f1b8_5a7c_2093);
/// Cause of a loss that the agent did not report.
const CAUSE_GAP: &str = "gap in the sequence numbers";

/// Follows the sequence numbers of one spool.
#[derive(Debug)]
pub(super) struct Sequence {
    agent_id: Uuid,
    spool_id: Uuid,
    organization_id: Uuid,
    workspace_id: Uuid,
    /// The next number.
    expected: i64,
}

impl Sequence {
    /// Follows on from what is committed; of a spool of which nothing is, from the first number that the agent will send.
    pub(super) fn new(
        agent_id: Uuid,
        agent: &AgentIdentity,
        spool_id: Uuid,
        committed_seq: Option<i64>,
        first_unacked_seq: i64,
    ) -> Self {
        Self {
            agent_id,
            spool_id,
            organization_id: agent.workspace.organization_id,
            workspace_id: agent.workspace.workspace_id,
            expected: committed_seq.map_or(first_unacked_seq.max(1), |seq| seq + 1),
        }
    }

    /// Notes that the event `seq` came, and returns what is missing before it.
    pub(super) fn event(&mut self, seq: i64, now: Timestamp) -> Option<LostRecord> {
        let expected = self.expected;
        self.expected = expected.max(seq + 1);
        (seq > expected).then(|| self.lost(expected, seq - 1, now, CAUSE_GAP))
    }

    /// Notes that the agent reports a loss that ends at `seq`, and returns what the log never got: numbers that are
    /// committed are not lost, whatever the agent thinks.
    pub(super) fn lost_events(
        &mut self,
        seq: i64,
        lost: &v1::LostEvents,
        now: Timestamp,
    ) -> Result<Vec<LostRecord>, Invalid> {
        let count = i64::try_from(lost.count).ok().filter(|count| (1..=seq).contains(count));
        let count = count.ok_or_else(|| {
            Invalid::new("count", format!("{} is not between 1 and the record's own number", lost.count))
        })?;
        let time =
            |name, time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| any_time(name, time)).transpose();
        let (since, until) = (time("since", &lost.since)?, time("until", &lost.until)?);
        let told_first = seq - count + 1;
        let expected = self.expected;
        self.expected = expected.max(seq + 1);
        let mut records = Vec::new();
        if told_first > expected {
            records.push(self.lost(expected, told_first - 1, now, CAUSE_GAP));
        }
        let first = told_first.max(expected);
        if first <= seq {
            let cause = match clean_text(&lost.cause, MAX_REASON_BYTES) {
                cause if cause.is_empty() => "told by the agent".to_owned(),
                cause => cause,
            };
            let mut record = self.lost(first, seq, now, &cause);
            (record.since, record.until) = (since, until);
            records.push(record);
        }
        Ok(records)
    }

    fn lost(&self, first_seq: i64, last_seq: i64, now: Timestamp, cause: &str) -> LostRecord {
        let mut name = Vec::with_capacity(40);
        name.extend_from_slice(self.agent_id.as_bytes());
        name.extend_from_slice(self.spool_id.as_bytes());
        name.extend_from_slice(&last_seq.to_be_bytes());
        LostRecord {
            id: Uuid::new_v5(&LOSS_NAMESPACE, &name),
            recorded_at: now,
            organization_id: self.organization_id,
            workspace_id: self.workspace_id,
            agent_id: Some(self.agent_id),
            hole: Some(Hole { spool_id: self.spool_id, first_seq, last_seq }),
            events: last_seq - first_seq + 1,
            since: None,
            until: None,
            cause: cause.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use connlog_model::identity::Workspace;

    use super::*;

    fn sequence(committed: Option<i64>) -> Sequence {
        of_spool(committed, 1)
    }

    fn of_spool(committed: Option<i64>, first_unacked_seq: i64) -> Sequence {
        let workspace = Workspace {
            organization_id: Uuid::from_u128(1),
            owner_id: Uuid::from_u128(2),
            workspace_id: Uuid::from_u128(3),
            workspace_name: "dev".to_owned(),
        };
        let agent = AgentIdentity { agent_id: None, agent_name: "main".to_owned(), workspace };
        Sequence::new(Uuid::from_u128(4), &agent, Uuid::from_u128(5), committed, first_unacked_seq)
    }

    fn span(record: &LostRecord) -> (i64, i64, i64) {
        let hole = record.hole.unwrap();
        (hole.first_seq, hole.last_seq, record.events)
    }

    fn told(sequence: &mut Sequence, seq: i64, count: u64) -> Vec<(i64, i64, i64)> {
        let lost = v1::LostEvents { count, ..v1::LostEvents::default() };
        sequence.lost_events(seq, &lost, DateTime::UNIX_EPOCH).unwrap().iter().map(span).collect()
    }

    #[test]
    fn a_hole_is_lost_and_a_replay_is_not() {
        let mut sequence = sequence(Some(10));
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(sequence.event(11, now), None);
        assert_eq!(sequence.event(9, now), None);
        assert_eq!(span(&sequence.event(15, now).unwrap()), (12, 14, 3));
        assert_eq!(sequence.event(16, now), None);
    }

    #[test]
    fn an_unknown_spool_begins_where_its_hello_says() {
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(of_spool(None, 5_000).event(5_000, now), None);
        assert_eq!(span(&of_spool(None, 1).event(5, now).unwrap()), (1, 4, 4), "a hole at the start is a hole");
        assert_eq!(span(&of_spool(None, 0).event(2, now).unwrap()), (1, 1, 1), "numbers begin at 1");
        assert_eq!(told(&mut sequence(None), 100, 100), [(1, 100, 100)]);
        assert_eq!(told(&mut of_spool(None, 51), 100, 50), [(51, 100, 50)]);
    }

    #[test]
    fn what_is_committed_is_not_lost_whatever_the_agent_thinks() {
        assert_eq!(told(&mut sequence(Some(40)), 100, 100), [(41, 100, 60)]);
        assert_eq!(told(&mut sequence(Some(100)), 100, 100), []);
        assert_eq!(told(&mut sequence(Some(40)), 100, 10), [(41, 90, 50), (91, 100, 10)]);
    }

    #[test]
    fn a_loss_of_nothing_or_of_more_than_there_was_is_refused() {
        for count in [0, 101, u64::MAX] {
            let lost = v1::LostEvents { count, ..v1::LostEvents::default() };
            assert_eq!(sequence(None).lost_events(100, &lost, DateTime::UNIX_EPOCH).unwrap_err().field, "count");
        }
    }
}
