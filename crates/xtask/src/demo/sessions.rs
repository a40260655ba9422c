//! Believable sessions: which client, when, how long, how it ended.

use chrono::TimeDelta;
use connlog_model::method::Method;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

/// A client of an agent: method, name of the app, weight.
const CLIENTS: [(Method, Option<&str>, u32); 12] = [
    (Method::Ssh, Some("ssh"), 20),
    (Method::Ssh, Some("vscode"), 30),
    (Method::Ssh, Some("cursor"), 15),
    (Method::Ssh, Some("goland"), 6),
    (Method::Ssh, Some("pycharm"), 5),
    (Method::Ssh, Some("jetbrains"), 3),
    (Method::Ssh, Some("zed"), 4),
    (Method::Ssh, Some("sftp"), 3),
    (Method::Ssh, Some("windsurf"), 3),
    (Method::Ssh, Some("kiro"), 1),
    (Method::Ssh, Some("in_house_editor"), 1),
    (Method::ReconnectingPty, None, 12),
];

/// How sessions end: reason, exit status, weight.
const ENDS: [(&str, i32, u32); 7] = [
    ("", 0, 55),
    ("client closed the connection", 0, 20),
    ("connection reset by peer", 255, 8),
    ("process exited", 1, 7),
    ("interrupted", 130, 5),
    ("idle timeout", 0, 3),
    ("killed", 137, 2),
];

/// How a session ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) reason: &'static str,
    pub(crate) code: i32,
}

/// A client, picked as often as it is used.
pub(crate) fn client(random: &mut SmallRng) -> (Method, Option<&'static str>) {
    let picked = CLIENTS.choose_weighted(random, |client| client.2).expect("the weights are positive");
    (picked.0, picked.1)
}

/// An end, picked as often as it happens.
pub(crate) fn end(random: &mut SmallRng) -> End {
    let picked = ENDS.choose_weighted(random, |end| end.2).expect("the weights are positive");
    End { reason: picked.0, code: picked.1 }
}

/// A length: most sessions are minutes, some are seconds, a few last for hours.
pub(crate) fn length(random: &mut SmallRng) -> TimeDelta {
    match random.random_range(0..10) {
        0..3 => TimeDelta::seconds(random.random_range(2..60)),
        3..8 => TimeDelta::seconds(random.random_range(60..3_600)),
        _ => TimeDelta::seconds(random.random_range(3_600..8 * 3_600)),
    }
}

/// An address of a client.
pub(crate) fn ip(random: &mut SmallRng) -> String {
    if random.random_ratio(1, 3) {
        format!("fd7a:115c:a1e0::{:x}", random.random_range(1..0xffff))
    } else {
        format!("10.{}.{}.{}", random.random_range(0..4), random.random_range(0..256), random.random_range(1..255))
    }
}
