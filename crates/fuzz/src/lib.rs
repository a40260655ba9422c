//! Feeds the code that strangers reach with arbitrary bytes. Each target panics if a property that it checks does not hold.
//!
//! `cargo xtask fuzz` lets libFuzzer look for such bytes, guided by the code that they reach. `corpus/` has inputs that
//! are worth keeping; they go through the targets in each run of the tests.

mod exports;
mod messages;
mod texts;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("messages", messages::messages),
    ("search", texts::search),
    ("cursors", texts::cursors),
    ("exports", exports::exports),
    ("spool", texts::spool),
    ("configuration", texts::configuration),
];
