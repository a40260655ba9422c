//! The one table that says whom an error of PostgreSQL holds up, by its SQLSTATE and the object that it names.
//!
//! SQLSTATEs are those of PostgreSQL's documentation, "PostgreSQL Error Codes"; `CL…` are raised by connlog's functions.

use tokio_postgres::error::DbError;

/// Whom an error holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nobody: the whole transaction is tried again at once.
    Retry,
    /// A day has no partition: it is made, then the transaction is tried again.
    MissingDay,
    /// A day that a statement names is gone: the transaction is tried again without it.
    DayGone,
    /// A lock was not granted in time: the caller decides.
    Lock,
    /// The event: it can never be stored.
    Event,
    /// Whatever needs the object that refuses (a day, somebody's trigger, a publication). It waits until the cause is gone.
    Object,
    /// Everybody: the database as a whole cannot do its work.
    Everyone,
}

/// Which errors of a SQLSTATE a rule is about.
#[derive(Debug, Clone, Copy)]
enum Object {
    /// All.
    Any,
    /// Those raised by `RAISE` in PL/pgSQL.
    Raised,
    /// Those in a PL/pgSQL function that is not connlog's.
    ForeignFunction,
    /// Those in a function of connlog's, but for what the system as a whole says.
    Upkeep,
    /// Those of the index that an id has one row.
    IdsOfDay,
    /// Those that name no constraint.
    NoConstraint,
    /// Those that name the table of a day.
    Day,
}

/// The rules; the first that fits decides. A SQLSTATE is given by its beginning.
const RULES: [(&str, Object, Blame); 29] = [
    // A day so far from the present that none is made.
    ("CL002", Object::Any, Blame::Event),
    // A table with the name of a day that is not attached to the log.
    ("CL003", Object::Any, Blame::Object),
    // A copy that is not the day, and a run that was overtaken.
    ("CL004", Object::Any, Blame::Object),
    ("CL005", Object::Any, Blame::Object),
    ("", Object::Raised, Blame::Object),
    // Serialization failure, deadlock, lock not available.
    ("40001", Object::Any, Blame::Retry),
    ("40P01", Object::Any, Blame::Retry),
    ("55P03", Object::Any, Blame::Lock),
    ("", Object::ForeignFunction, Blame::Object),
    // Somebody else wrote an id of the batch meanwhile: a web event by another agent's name. It is found the next time.
    ("23505", Object::IdsOfDay, Blame::Retry),
    // No partition for a row; a CHECK names itself.
    ("23514", Object::NoConstraint, Blame::MissingDay),
    ("42P01", Object::Day, Blame::DayGone),
    // In what keeps days, closes and trims there are no values of an event.
    ("", Object::Upkeep, Blame::Object),
    // Data exception, integrity constraint violation, program limit exceeded.
    ("22", Object::Any, Blame::Event),
    ("23", Object::Any, Blame::Event),
    ("54", Object::Any, Blame::Event),
    // Connection exception, insufficient resources, operator intervention, system error.
    ("08", Object::Any, Blame::Everyone),
    ("53", Object::Any, Blame::Everyone),
    ("57P", Object::Any, Blame::Everyone),
    ("58", Object::Any, Blame::Everyone),
    // A statement timeout, or a cancelled statement.
    ("57014", Object::Any, Blame::Everyone),
    // A standby, or a database that is read-only.
    ("25006", Object::Any, Blame::Everyone),
    // Credentials, an unknown database, an unknown schema.
    ("28", Object::Any, Blame::Everyone),
    ("3D", Object::Any, Blame::Everyone),
    ("3F", Object::Any, Blame::Everyone),
    // A right to a day is that day's matter, a right to anything else everybody's.
    ("42501", Object::Day, Blame::Object),
    ("42501", Object::Any, Blame::Everyone),
    // A table that is missing altogether.
    ("42P01", Object::Any, Blame::Everyone),
    ("", Object::Any, Blame::Object),
];

/// Functions of connlog's in PL/pgSQL: an error in one of them is not a foreign one.
const OWN_FUNCTIONS: [&str; 20] = [
    "apply_to_compacted(",
    "attach_day(",
    "begin_compaction(",
    "close_days(",
    "copy_compacted(",
    "drop_day(",
    "due_open(",
    "fold_counts(",
    "grant_day(",
    "hold_compaction(",
    "hold_day(",
    "index_compacted(",
    "raise_floor(",
    "remove_open(",
    "remove_records(",
    "restart_feed(",
    "swap_compacted(",
    "take_unknown_starts(",
    "trim_changes(",
    "trim_day(",
];
/// What precedes the date in the name of a day's table.
const DAY_PREFIX: &str = "connection_logs_";

/// Whom an error holds up.
pub(super) fn blame(error: &DbError) -> Blame {
    let facts = Facts {
        state: error.code().code(),
        constraint: error.constraint(),
        is_raised: error.routine() == Some("exec_stmt_raise"),
        context: error.where_().unwrap_or_default(),
        names_day: error.table().is_some_and(names_day) || names_day(error.message()),
    };
    facts.blame()
}

/// What the rules go by.
struct Facts<'a> {
    state: &'a str,
    constraint: Option<&'a str>,
    is_raised: bool,
    context: &'a str,
    names_day: bool,
}

impl Facts<'_> {
    fn blame(&self) -> Blame {
        let fits = |(state, object, _): &&(&str, Object, Blame)| self.state.starts_with(state) && self.is_of(*object);
        RULES.iter().find(fits).map_or(Blame::Object, |(_, _, blame)| *blame)
    }

    fn is_of(&self, object: Object) -> bool {
        match object {
            Object::Any => true,
            Object::Raised => self.is_raised,
            Object::ForeignFunction => self.is_in_foreign_function(),
            Object::Upkeep => {
                let of_system =
                    ["08", "53", "57", "58", "25006", "42501"].iter().any(|state| self.state.starts_with(state));
                !of_system && OWN_FUNCTIONS.iter().any(|name| self.context.contains(name))
            }
            Object::IdsOfDay => self.constraint.is_some_and(|name| names_day(name) && name.ends_with("_id")),
            Object::NoConstraint => self.constraint.is_none(),
            Object::Day => self.names_day,
        }
    }

    fn is_in_foreign_function(&self) -> bool {
        self.context.contains("PL/pgSQL function") && !OWN_FUNCTIONS.iter().any(|name| self.context.contains(name))
    }
}

/// Whether a text has the name of a day's table in it.
fn names_day(text: &str) -> bool {
    text.match_indices(DAY_PREFIX).any(|(at, prefix)| {
        let rest = &text.as_bytes()[at + prefix.len()..];
        rest.len() >= 8 && rest[..8].iter().all(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: &str, constraint: Option<&str>, is_raised: bool, context: &str, message: &str) -> Blame {
        Facts { state, constraint, is_raised, context, names_day: names_day(message) }.blame()
    }

    #[test]
    fn own_functions_are_those_of_the_schema() {
        const SCHEMA: &str = include_str!("../../../../migrations/schema.sql");
        let functions = SCHEMA.split("CREATE FUNCTION public.").skip(1);
        let in_plpgsql = functions
            .filter(|function| function.split("AS $").next().is_some_and(|head| head.contains("LANGUAGE plpgsql")));
        let mut names: Vec<String> =
            in_plpgsql.filter_map(|function| Some(format!("{}(", function.split('(').next()?))).collect();
        names.sort();
        assert_eq!(names, OWN_FUNCTIONS);
    }

    #[test]
    fn the_state_and_the_object_decide() {
        let plain = |state, message| of(state, None, false, "", message);
        assert_eq!(plain("40P01", "deadlock detected"), Blame::Retry);
        assert_eq!(plain("23514", "no partition of relation found for row"), Blame::MissingDay);
        assert_eq!(of("23514", Some("by_hand"), false, "", "violates check constraint"), Blame::Event);
        assert_eq!(of("23505", Some("connection_logs_20261127_id"), false, "", "duplicate key"), Blame::Retry);
        assert_eq!(of("23505", Some("by_hand"), false, "", "duplicate key"), Blame::Event);
        assert_eq!(plain("42P01", "relation \"connection_logs_20261127\" does not exist"), Blame::DayGone);
        assert_eq!(plain("42P01", "relation \"connection_logs\" does not exist"), Blame::Everyone);
        assert_eq!(plain("42501", "permission denied for table connection_logs_20261127"), Blame::Object);
        assert_eq!(plain("42501", "permission denied for table connection_logs"), Blame::Everyone);
        assert_eq!(plain("53100", "could not extend file"), Blame::Everyone);
        assert_eq!(
            plain("55000", "cannot delete from table because it does not have a replica identity"),
            Blame::Object
        );
        assert_eq!(plain("XX000", "unexpected"), Blame::Object);
        assert_eq!(plain("22021", "invalid byte sequence"), Blame::Event);
        assert_eq!(plain("CL003", "table connection_logs_20261127 is not attached"), Blame::Object);
    }

    #[test]
    fn what_somebodys_trigger_raises_is_never_the_events_nor_everybodys() {
        for state in ["P0001", "55000", "42501", "XX000", "23514", "40001", "53100", "22000"] {
            assert_eq!(
                of(state, None, true, "PL/pgSQL function audit() line 3 at RAISE", ""),
                Blame::Object,
                "{state}"
            );
        }
        assert_eq!(of("42703", None, false, "PL/pgSQL function audit() line 3 at assignment", ""), Blame::Object);
        let own = "SQL statement \"CREATE TABLE\"\nPL/pgSQL function attach_day(date) line 20 at EXECUTE";
        assert_eq!(of("53100", None, false, own, "could not extend file"), Blame::Everyone);
        assert_eq!(of("22007", None, false, own, "invalid value \"_default\""), Blame::Object);
    }
}
