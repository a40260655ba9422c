//! Limits the dead letters of a sender that are kept whole. Further ones are counted by cause, in one record a day, which holds the first.
//!
//! Without this, an agent that sends nothing else fills the disk: four gigabytes a day at the pace of `pace.rs`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use connlog_store::RejectedRecord;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use uuid::Uuid;

use crate::pace;

/// Namespace of the ids of merged letters. Fixed for ever: all of a day are one record.
const MERGED_NAMESPACE: Uuid = Uuid::from_u128(0x71c4_0a5e_93fd_4e0b_a8d6_5b1c_2e47_f90d);
/// A letter counts as a KiB at least: its row and its index entries take as much.
const UNIT_BYTES: usize = 1024;
/// A sender may save up so many hours of its budget.
const BURST_HOURS: u32 = 4;

/// The budgets of senders, by agent or by reporter's token.
pub(super) struct LetterBudget {
    senders: Arc<DefaultKeyedRateLimiter<Uuid>>,
}

impl LetterBudget {
    /// `kib_per_hour` of each sender, after four hours' worth at once.
    pub(super) fn new(kib_per_hour: NonZeroU32) -> Self {
        let burst = kib_per_hour.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_HOURS - 1));
        Self { senders: Arc::new(RateLimiter::keyed(Quota::per_hour(kib_per_hour).allow_burst(burst))) }
    }

    /// Merges what is beyond the budget of its sender, one record for each cause.
    pub(super) fn spend(&self, letters: Vec<RejectedRecord>) -> Vec<RejectedRecord> {
        let (mut kept, mut merged) = (Vec::with_capacity(letters.len()), BTreeMap::<Uuid, RejectedRecord>::new());
        for letter in letters {
            if self.keeps(&letter) {
                kept.push(letter);
                continue;
            }
            metrics::counter!("connlog_ingest_merged_letters_total").increment(1);
            let letter = merge(letter);
            match merged.get_mut(&letter.id) {
                Some(first) => (first.events, first.position) = (first.events + 1, letter.position),
                None => drop(merged.insert(letter.id, letter)),
            }
        }
        kept.extend(merged.into_values());
        kept
    }

    /// Forgets senders that have all of their budget again, for as long as somebody uses this.
    pub(super) fn forget(&self) -> impl Future<Output = ()> + use<> {
        pace::forget(&self.senders)
    }

    fn keeps(&self, letter: &RejectedRecord) -> bool {
        let sender = letter.agent_id.or(letter.token_id).or(letter.workspace_id).unwrap_or_default();
        let units = u32::try_from(letter.message.len() / UNIT_BYTES).unwrap_or(u32::MAX - 1);
        matches!(self.senders.check_key_n(&sender, NonZeroU32::MIN.saturating_add(units)), Ok(Ok(())))
    }
}

/// The record of all letters of a sender about a workspace that have one cause, of one day (UTC).
fn merge(letter: RejectedRecord) -> RejectedRecord {
    let mut name = Vec::with_capacity(96);
    for id in [letter.agent_id, letter.token_id, letter.workspace_id] {
        name.extend_from_slice(id.unwrap_or_default().as_bytes());
    }
    name.extend_from_slice(letter.received_at.date_naive().to_string().as_bytes());
    name.extend_from_slice(letter.message_type.as_bytes());
    name.push(0);
    name.extend_from_slice(letter.field.as_bytes());
    RejectedRecord { id: Uuid::new_v5(&MERGED_NAMESPACE, &name), is_merged: true, ..letter }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn letter(number: u128, agent: u128, field: &str, bytes: usize) -> RejectedRecord {
        RejectedRecord {
            id: Uuid::from_u128(number),
            received_at: DateTime::UNIX_EPOCH,
            organization_id: None,
            workspace_id: Some(Uuid::from_u128(agent)),
            agent_id: Some(Uuid::from_u128(agent)),
            token_id: None,
            position: Some((Uuid::from_u128(5), i64::try_from(number).unwrap())),
            message_type: "connlog.v1.SequencedEvent",
            message: vec![1; bytes],
            field: field.to_owned(),
            reason: "is wrong".to_owned(),
            events: 1,
            is_merged: false,
        }
    }

    #[test]
    fn what_is_beyond_a_senders_budget_is_one_record_for_each_cause_and_day() {
        let budget = LetterBudget::new(NonZeroU32::new(2).unwrap());
        let letters = (0..20).map(|number| letter(number, 1, if number % 2 == 0 { "id" } else { "ip" }, 10));
        let found = budget.spend(letters.collect());
        let (merged, kept): (Vec<_>, Vec<_>) = found.iter().partition(|letter| letter.is_merged);
        assert_eq!((kept.len(), merged.len()), (8, 2));
        assert_eq!(found.iter().map(|letter| letter.events).sum::<i64>(), 20);
        assert!(merged.iter().all(|letter| letter.position.unwrap().1 >= 18));
        // Again, and later on the same day, it is the same record; on the next day, and of another agent, it is not.
        let id = |letter: RejectedRecord| budget.spend(vec![letter]).remove(0).id;
        let of = |field: &str| merged.iter().find(|letter| letter.field == field).unwrap().id;
        assert_eq!(id(letter(99, 1, "id", 10)), of("id"));
        let next_day =
            RejectedRecord { received_at: DateTime::UNIX_EPOCH + TimeDelta::days(1), ..letter(98, 1, "id", 10) };
        assert_ne!(id(next_day), of("id"));
        assert_eq!(id(letter(97, 2, "id", 10)), Uuid::from_u128(97), "another agent has a budget of its own");
        // Bytes count, too: this is more than ever fits.
        assert!(budget.spend(vec![letter(96, 3, "id", 9 << 10)]).remove(0).is_merged);
    }
}
