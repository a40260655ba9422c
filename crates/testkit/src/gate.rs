//! A gate between a client and PostgreSQL: each statement waits until it is let through.
//!
//! It works on the wire, so what runs is the shipped code, statement by statement, in an order that a test decides. It
//! can also rewrite SQL on its way, which is how mutation checks change a statement without touching the code.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::pgwire::{Message, read_message};

/// Changes SQL on its way; `None` leaves it as it is.
pub type Rewrite = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A statement, a text in it, and what takes its place.
pub type Change = (&'static str, &'static str, &'static str);

/// Changes statements, each by its name.
///
/// # Panics
/// When a statement passes that does not have the text.
pub fn changing(changes: &'static [Change]) -> Rewrite {
    Arc::new(move |sql| {
        let of_it = changes.iter().filter(|(name, ..)| sql.starts_with(&format!("-- {name}\n")));
        let new = of_it.fold(sql.to_owned(), |sql, (_, from, to)| {
            assert!(sql.contains(from), "{sql} has no {from:?}");
            sql.replace(from, to)
        });
        (new != sql).then_some(new)
    })
}

/// SQL that changes the text of a function: where it has the first of a pair, it has the second. It fails if it has not.
pub fn changing_function(name: &str, changes: &[(&str, &str)]) -> String {
    let change = |(from, to): &(&str, &str)| {
        format!(
            "DO $do$ DECLARE before text := pg_get_functiondef('{name}'::regproc);
                 after text := replace(before, $from${from}$from$, $to${to}$to$);
             BEGIN ASSERT before <> after; EXECUTE after; END $do$;"
        )
    };
    changes.iter().map(change).collect()
}

/// A statement that waits at the gate.
pub struct Waiting {
    /// Its name: the first line of its SQL, without the comment dashes.
    pub name: String,
    release: oneshot::Sender<()>,
}

impl Waiting {
    /// Lets it through.
    pub fn release(self) {
        let _gone_if_the_connection_was_cut = self.release.send(());
    }
}

/// What a gate reports.
pub enum Report {
    /// A statement arrived and waits.
    Arrived(Waiting),
    /// The statement that was let through has been answered.
    Answered,
}

/// A proxy for one client connection at a time.
pub struct Gate {
    port: u16,
    reports: mpsc::UnboundedReceiver<Report>,
    control: Arc<Mutex<Control>>,
}

#[derive(Default)]
struct Control {
    closed: bool,
}

impl Gate {
    /// Opens a gate to the server at `server` (`host:port`). It lets everything through until [`close`](Self::close).
    async fn open(server: String, rewrite: Option<Rewrite>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (sender, reports) = mpsc::unbounded_channel();
        let control = Arc::new(Mutex::new(Control::default()));
        let shared = Arc::clone(&control);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(&server).await else { return };
                let _unsupported_is_only_slower = (client.set_nodelay(true), upstream.set_nodelay(true));
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = upstream.into_split();
                let (answered_sender, answered) = mpsc::unbounded_channel();
                tokio::spawn(forward_answers(server_read, client_write, answered_sender));
                let requests = Requests {
                    reader: client_read,
                    writer: server_write,
                    answered,
                    reports: sender.clone(),
                    control: Arc::clone(&shared),
                    rewrite: rewrite.clone(),
                    prepared: std::collections::HashMap::new(),
                };
                tokio::spawn(requests.forward());
            }
        });
        Ok(Self { port, reports, control })
    }

    /// A gate to the server of `url`, and the URL that leads through it.
    pub async fn before(url: &str, rewrite: Option<Rewrite>) -> Result<(Self, String)> {
        let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).context("the URL names a server")?;
        let gate = Self::open(server.to_owned(), rewrite).await?;
        let through = url.replace(server, &format!("127.0.0.1:{}", gate.port));
        Ok((gate, format!("{through}?sslmode=disable")))
    }

    /// From now on every statement waits to be let through.
    pub async fn close(&mut self) {
        self.control.lock().await.closed = true;
        while self.reports.try_recv().is_ok() {}
    }

    /// From now on everything passes. Reports of what passed before are dropped at the next [`close`](Self::close).
    pub async fn reopen(&mut self) {
        self.control.lock().await.closed = false;
    }

    /// The next report.
    pub async fn report(&mut self) -> Result<Report> {
        self.reports.recv().await.context("the gate is gone")
    }

    /// The next report, if there is one already.
    pub fn try_report(&mut self) -> Option<Report> {
        self.reports.try_recv().ok()
    }
}

struct Requests {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    answered: mpsc::UnboundedReceiver<()>,
    reports: mpsc::UnboundedSender<Report>,
    control: Arc<Mutex<Control>>,
    rewrite: Option<Rewrite>,
    prepared: std::collections::HashMap<String, Statement>,
}

/// What is known of a statement.
#[derive(Clone)]
struct Statement {
    name: String,
    /// Whether rows follow it.
    copies: bool,
}

impl Statement {
    fn new(sql: &str) -> Self {
        let (first_line, rest) = sql.split_once('\n').unwrap_or((sql, ""));
        Self { name: first_line.trim_start_matches('-').trim().to_owned(), copies: rest.starts_with("COPY") }
    }
}

impl Requests {
    /// Forwards request by request: everything up to a `Sync` or a simple `Query` is one.
    async fn forward(mut self) -> Option<()> {
        let startup = read_message(&mut self.reader, true).await.ok()??;
        self.writer.write_all(&startup.bytes).await.ok()?;
        self.answered.recv().await?;
        loop {
            let (bytes, statement) = self.read_request().await?;
            let closed = self.control.lock().await.closed;
            match statement {
                Some(Statement { name, copies }) if closed => {
                    let (release, released) = oneshot::channel();
                    self.reports.send(Report::Arrived(Waiting { name, release })).ok()?;
                    released.await.ok()?;
                    self.pass(&bytes, copies).await?;
                    self.reports.send(Report::Answered).ok()?;
                }
                statement => self.pass(&bytes, statement.is_some_and(|statement| statement.copies)).await?,
            }
        }
    }

    /// Forwards a request and waits until it is answered. The rows of a `COPY` follow it, once the server is ready for them, up
    /// to a `Sync` of their own.
    async fn pass(&mut self, bytes: &[u8], copies: bool) -> Option<()> {
        self.writer.write_all(bytes).await.ok()?;
        let mut rows_follow = copies;
        while rows_follow {
            let message = read_message(&mut self.reader, false).await.ok()??;
            self.writer.write_all(&message.bytes).await.ok()?;
            rows_follow = message.kind != Some(b'S');
        }
        self.answered.recv().await
    }

    /// One request, and the name of its statement if it executes one.
    async fn read_request(&mut self) -> Option<(BytesMut, Option<Statement>)> {
        let (mut bytes, mut statement) = (BytesMut::new(), None);
        loop {
            let mut message = read_message(&mut self.reader, false).await.ok()??;
            if let Some(rewrite) = &self.rewrite {
                message = message.rewritten(&**rewrite);
            }
            bytes.extend_from_slice(&message.bytes);
            match message.kind? {
                b'P' => self.remember(&message),
                b'B' => statement = self.bound_statement(&message),
                b'Q' => return Some((bytes, message.query_sql().map(|sql| Statement::new(&sql)))),
                b'S' => return Some((bytes, statement)),
                b'X' => {
                    self.writer.write_all(&bytes).await.ok()?;
                    return None;
                }
                _ => {}
            }
        }
    }

    fn remember(&mut self, message: &Message) {
        if let Some(sql) = message.parse_sql() {
            let name = message.bytes[5..].split(|byte| *byte == 0).next().unwrap_or_default();
            self.prepared.insert(String::from_utf8_lossy(name).into_owned(), Statement::new(&sql));
        }
    }

    /// A `Bind` names its portal, then its prepared statement.
    fn bound_statement(&self, message: &Message) -> Option<Statement> {
        let name = message.bytes[5..].split(|byte| *byte == 0).nth(1)?;
        self.prepared.get(String::from_utf8_lossy(name).as_ref()).cloned()
    }
}

/// Forwards answers, and tells after each `ReadyForQuery` that one is complete.
async fn forward_answers(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, answered: mpsc::UnboundedSender<()>) {
    while let Ok(Some(message)) = read_message(&mut reader, false).await {
        if writer.write_all(&message.bytes).await.is_err() {
            return;
        }
        if message.kind == Some(b'Z') && answered.send(()).is_err() {
            return;
        }
    }
}
