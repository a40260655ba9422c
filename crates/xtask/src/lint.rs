//! `cargo xtask lint`: what can be said of the tree without running it.

use anyhow::Result;

use crate::command::{cargo, succeed, timed};
use crate::{deployment, install};

/// Runs all lints: format, clippy, documentation, dependencies, and what is deployed.
pub(crate) fn run() -> Result<()> {
    install::rust_components()?;
    timed("format", || succeed(cargo(&["fmt", "--all", "--check"])))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    timed("clippy", || {
        let mut clippy = cargo(&clippy);
        // What it keeps to be quicker after a change is as large as the test programs.
        clippy.env("CARGO_INCREMENTAL", "0");
        succeed(clippy)
    })?;
    timed("documentation", || {
        let mut docs = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
        // These pages are for those who work on connlog: they show private items, and may link to them.
        docs.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
        succeed(docs)
    })?;
    timed("deployment", deployment::manifests)?;
    timed("dependencies", deployment::dependencies)
}
