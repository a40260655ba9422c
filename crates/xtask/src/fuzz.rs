//! `cargo xtask fuzz`: the targets of `crates/fuzz`, driven by libFuzzer and guided by coverage, with the stable compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use connlog_testkit::postgres::target_dir;

use crate::command::{cargo, succeed};
use crate::install;

/// How long each target is fuzzed, in seconds: for CI, and at night.
pub(crate) const SHORT: u32 = 10;
pub(crate) const LONG: u32 = 600;

/// What the compiler adds for libFuzzer: counters of edges, and the values of comparisons.
const INSTRUMENTATION: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Copt-level=1",
];
/// An input that takes longer, in seconds, or more memory, in MiB, is a finding.
const TIMEOUT: u32 = 10;
const MEMORY: u32 = 1024;
/// Largest input, in bytes.
const LARGEST: u32 = 4096;

/// Fuzzes each target for so long. With `keep`, the corpus gets what reaches new code.
pub(crate) fn run(seconds: u32, keep: bool) -> Result<()> {
    install::debian("g++", &["g++"], "compiles libFuzzer")?;
    let host = host()?;
    let folder = target_dir().join("fuzz");
    let mut build = cargo(&["build", "--locked", "-p", "connlog-fuzz", "--features", "libfuzzer", "--target", &host]);
    // Flags for the target alone: what runs while building is not instrumented.
    build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", INSTRUMENTATION.join(" "));
    succeed(build).context("the targets cannot be built")?;
    let program = folder.join(&host).join("debug/connlog-fuzz");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut failed = Vec::new();
    for name in targets(&corpus)? {
        let (found, kept) = (folder.join("found").join(&name), corpus.join(&name));
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        println!("== fuzz {name}");
        let run = |arguments: &[String], folders: [&Path; 2]| {
            let mut fuzz = Command::new(&program);
            fuzz.env("CONNLOG_FUZZ_TARGET", &name).args(arguments).args(folders).current_dir(&folder);
            fuzz.status().with_context(|| format!("cannot run {}", program.display()))
        };
        let arguments = [
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT}"),
            format!("-rss_limit_mb={MEMORY}"),
            format!("-max_len={LARGEST}"),
            format!("-artifact_prefix={name}-"),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
        ];
        if !run(&arguments, [&found, &kept])?.success() {
            failed.push(name.clone());
        }
        if keep && !run(&["-merge=1".to_owned(), "-verbosity=0".to_owned()], [&kept, &found])?.success() {
            bail!("what was found for {name} cannot be merged into the corpus");
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} found inputs that do not hold: they are in {}", failed.join(", "), folder.display())
}

/// The targets: each has a folder of the corpus.
fn targets(corpus: &Path) -> Result<Vec<String>> {
    let folders = fs::read_dir(corpus).with_context(|| format!("cannot list {}", corpus.display()))?;
    let names = folders.map(|folder| Ok(folder?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// What this machine is called by the compiler.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let host =
        text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not say what it runs on")?;
    Ok(host.to_owned())
}
