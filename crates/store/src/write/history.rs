//! History: looking connections up by id, adding and changing them.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use chrono::{Days, NaiveDate, TimeDelta};
use connlog_model::clock::Timestamp;
use connlog_model::connection::Connection;
use uuid::Uuid;

use super::fold::Entry;
use crate::StoreError;
use crate::argument::Argument;
use crate::partitions::{day_table, start_of, windows};
use crate::row::{AT_HOME, Columns as _, HISTORY_COLUMNS, HISTORY_READ, HistoryArrays, completed_connection};
use crate::session::{Transaction, execute, insert_rows, plan_for_each, query, query_composed};

/// How far before a start in a reporter's own words a row is looked for: clocks of one connection's events differ.
const KNOWN_START_MARGIN: TimeDelta = TimeDelta::days(1);
/// How far back a row is looked for if the events do not say when it began. Documented in `proto/README.md`.
pub(crate) const LOOK_BACK: TimeDelta = TimeDelta::days(45);
/// Bounds later than this many days ago share one look-up; older ones are rare and have their own.
const NEAR: TimeDelta = TimeDelta::days(8);
/// How far in the future a row can lie: events are accepted up to a day ahead.
pub(crate) const HORIZON: Days = Days::new(2);

const UNNEST: &str = "unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], \
     $7::timestamptz[], $8::smallint[], $9::text[], $10::inet[], $11::uuid[], $12::uuid[], $13::smallint[], \
     $14::boolean[], $15::timestamptz[], $16::timestamptz[], $17::boolean[], $18::text[], $19::int[], $20::bigint[], \
     $21::bigint[], $22::timestamptz[]";

/// Connections of history the hashes of whose ids are those of ids in `$1`, by their index: whoever asks compares the ids, too. All of them
/// have ended; a condition on the method would be answered by another index, too.
pub(crate) const AMONG: &str = "uuid_hash_extended(id, 0) = ANY(ARRAY(SELECT uuid_hash_extended(wanted, 0) FROM unnest($1::uuid[]) AS wanted)) \
     AND disconnect_time IS NOT NULL";

/// The days among those asked for that exist. By the snapshot of the statement: `to_regclass` may not know yet of a day that
/// another transaction has made. Reading the parent takes its lock before those of the days, as dropping a day does.
const EXISTING_DAYS: &str = "-- existing_days
SELECT day FROM unnest($1::date[]) AS day
JOIN pg_class ON relname = day_table(day) AND relnamespace = 'public'::regnamespace AND relispartition
WHERE NOT EXISTS (SELECT FROM ONLY connection_logs) ORDER BY day";

/// The look-up in some days, by name. With a condition on the time instead, the planner takes what it knows nothing of
/// yet, a day that has just begun, for small, and reads all of its index of times with each batch.
fn look_up_sql(days: &[NaiveDate]) -> String {
    let of_day = |day: &NaiveDate| format!("SELECT {HISTORY_COLUMNS} FROM {} WHERE {AMONG}", day_table(*day));
    let selects: Vec<String> = days.iter().map(of_day).collect();
    // OFFSET keeps the planner from beginning with the homes.
    let found = selects.join("\nUNION ALL ");
    format!("-- look_up_history\nSELECT {} FROM (\n{found}\nOFFSET 0) AS found {AT_HOME}", *HISTORY_READ)
}

/// Half of what [`INSERT_UNNESTED`] costs.
static INSERT: LazyLock<String> =
    LazyLock::new(|| format!("-- insert_history\nCOPY connection_logs ({HISTORY_COLUMNS}) FROM STDIN (FORMAT binary)"));

/// The same through a pooler.
static INSERT_UNNESTED: LazyLock<String> = LazyLock::new(|| {
    format!("-- insert_history\nINSERT INTO connection_logs ({HISTORY_COLUMNS})\nSELECT * FROM {UNNEST})")
});

/// Addressed by id and exact `connect_time`, with constant bounds, so that only the days concerned are touched. A new
/// `connect_time` may move the row to another day.
static UPDATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- update_history\nUPDATE connection_logs AS h\nSET connect_time = k.connect_time, method = k.method, \
         app_name = k.app_name, ip = k.ip, client_session_id = k.client_session_id, user_id = k.user_id, \
         start_source = k.start_source, method_known = k.method_known, received_at = k.received_at, \
         disconnect_time = k.disconnect_time, ended_received_at = k.ended_received_at, \
         disconnect_inferred = k.disconnect_inferred, disconnect_reason = k.disconnect_reason, code = k.code, \
         rx_bytes = k.rx_bytes, tx_bytes = k.tx_bytes, changed_xid = pg_current_xact_id()\n\
         FROM {UNNEST}, $23::timestamptz[]) AS k ({HISTORY_COLUMNS}, stored_connect_time)\n\
         WHERE uuid_hash_extended(h.id, 0) = uuid_hash_extended(k.id, 0) AND h.id = k.id AND h.disconnect_time IS NOT NULL \
         AND h.connect_time = k.stored_connect_time AND h.connect_time BETWEEN $24 AND $25"
    )
});

/// Finds those of the connections that were not open, and whose keys are therefore fresh, in history. The statement is
/// later than the one that took the keys, so its snapshot has whatever was completed before.
pub(super) async fn look_up(
    transaction: &Transaction<'_>,
    entries: &BTreeMap<Uuid, Entry<'_>>,
    held: &HashMap<Uuid, Connection>,
    now: Timestamp,
) -> Result<HashMap<Uuid, Connection>, StoreError> {
    let (mut near, mut far) = (Probe::default(), Probe::default());
    for (&id, entry) in entries.iter().filter(|(id, _)| !held.contains_key(id)) {
        let bound = look_up_bound(entry, now);
        if bound >= now - NEAR { near.add(id, bound) } else { far.add(id, bound) }
    }
    let mut found = HashMap::new();
    for probe in [near, far] {
        let Some(earliest) = probe.earliest else { continue };
        for (from, to) in windows(earliest, now + HORIZON) {
            let wanted: Vec<NaiveDate> = from.date_naive().iter_days().take_while(|day| start_of(*day) < to).collect();
            // Asked under the keys: what was completed before has its day by now.
            let rows = query(transaction, EXISTING_DAYS, &[&wanted]).await?;
            let days = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<NaiveDate>, _>>()?;
            if days.is_empty() {
                continue;
            }
            for row in query_composed(transaction, &look_up_sql(&days), &[&probe.ids]).await? {
                let connection = completed_connection(&row)?;
                // Here, not in SQL: a plan for all parameters compares each row with id after id.
                if entries.contains_key(&connection.id) && !held.contains_key(&connection.id) {
                    found.insert(connection.id, connection);
                }
            }
        }
    }
    Ok(found)
}

#[derive(Default)]
struct Probe {
    ids: Vec<Uuid>,
    earliest: Option<Timestamp>,
}

impl Probe {
    fn add(&mut self, id: Uuid, bound: Timestamp) {
        self.ids.push(id);
        self.earliest = Some(self.earliest.map_or(bound, |earliest| earliest.min(bound)));
    }
}

/// Not bounded by the retention floor: a row below it that awaits its purge must be found, or it would get a twin.
fn look_up_bound(entry: &Entry<'_>, now: Timestamp) -> Timestamp {
    match entry.known_start() {
        // An event without a beginning beside one that has it is about the same row.
        Some(start) => start - KNOWN_START_MARGIN,
        None => entry.earliest().unwrap_or(now) - LOOK_BACK,
    }
}

/// Adds completed connections.
pub(crate) async fn insert(transaction: &Transaction<'_>, connections: &[Connection]) -> Result<(), StoreError> {
    if connections.is_empty() {
        return Ok(());
    }
    let mut arrays = HistoryArrays::default();
    for connection in connections {
        arrays.push(connection);
    }
    insert_rows(transaction, &INSERT, &INSERT_UNNESTED, &arrays).await
}

/// Writes completed connections back, each with the `connect_time` under which it is stored.
pub(crate) async fn update(
    transaction: &Transaction<'_>,
    connections: &[(Timestamp, Connection)],
) -> Result<(), StoreError> {
    let stored: Vec<Timestamp> = connections.iter().map(|(stored, _)| *stored).collect();
    let (Some(earliest), Some(latest)) = (stored.iter().min(), stored.iter().max()) else { return Ok(()) };
    let mut arrays = HistoryArrays::default();
    for (_, connection) in connections {
        arrays.push(connection);
    }
    let mut parameters = arrays.parameters();
    parameters.extend([&stored as &dyn Argument, earliest, latest]);
    plan_for_each(transaction).await?;
    let updated = execute(transaction, &UPDATE, &parameters).await?;
    if usize::try_from(updated).ok() != Some(connections.len()) {
        return Err(StoreError::Purged(format!("{updated} of {} held rows of history changed", connections.len())));
    }
    Ok(())
}
