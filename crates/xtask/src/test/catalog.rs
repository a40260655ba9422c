//! The test programs that cargo builds, and the tests that each of them has.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::cargo;

/// A program with tests.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The package, and the test file unless the tests lie in the library or in the program itself: `connlog-store/plans`.
    pub(super) name: String,
    /// The executable.
    pub(super) path: PathBuf,
    /// The package's folder: tests run there.
    pub(super) folder: PathBuf,
}

/// A test of a program.
#[derive(Debug, Clone)]
pub(super) struct Test {
    /// The program.
    pub(super) program: Program,
    /// Its path within the program, as libtest lists it.
    pub(super) path: String,
}

/// Builds all binaries and all test programs, and returns the latter.
pub(super) fn build() -> Result<Vec<Program>> {
    println!("== build");
    let mut command = cargo(&["build", "--workspace", "--all-targets", "--locked"]);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo's output is piped")?;
    let mut programs = Vec::new();
    for line in BufReader::new(output).lines() {
        let message: Value = serde_json::from_str(&line?).context("cargo prints messages as JSON")?;
        programs.extend(program(&message)?);
    }
    ensure!(child.wait()?.success(), "the build failed");
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

/// The test program that a message of cargo announces, if it does.
fn program(message: &Value) -> Result<Option<Program>> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let Some(path) = message["executable"].as_str().filter(|_| is_test) else { return Ok(None) };
    let manifest = PathBuf::from(message["manifest_path"].as_str().context("an artifact has a manifest")?);
    let folder = manifest.parent().context("a manifest lies in a folder")?.to_owned();
    let target = message["target"]["name"].as_str().context("an artifact has a target")?;
    let is_file_of_tests = message["target"]["kind"][0] == "test";
    let package = package_name(message["package_id"].as_str().context("an artifact has a package")?)?;
    let name = if is_file_of_tests { format!("{package}/{target}") } else { package.to_owned() };
    Ok(Some(Program { name, path: path.into(), folder }))
}

/// The name in a package id: `path+file:///…/crates/ctl#connlogctl@0.1.0`, or without the name if the folder has it.
fn package_name(id: &str) -> Result<&str> {
    let (path, fragment) = id.split_once('#').context("a package id has a fragment")?;
    match fragment.split_once('@') {
        Some((name, _)) => Ok(name),
        None => path.rsplit('/').next().context("a package has a folder"),
    }
}

/// Asks each program for its tests.
pub(super) fn tests(programs: &[Program]) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for program in programs {
        let output = Command::new(&program.path).args(["--list", "--format", "terse"]).output()?;
        if !output.status.success() {
            bail!("{} cannot list its tests: {}", program.name, String::from_utf8_lossy(&output.stderr));
        }
        let listed = String::from_utf8(output.stdout)?;
        let paths = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        tests.extend(paths.map(|path| Test { program: program.clone(), path: path.to_owned() }));
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::package_name;

    #[test]
    fn a_package_id_gives_its_name_with_and_without_one_of_its_own() {
        assert_eq!(package_name("path+file:///w/crates/ctl#connlogctl@0.1.0").ok(), Some("connlogctl"));
        assert_eq!(package_name("path+file:///w/crates/xtask#0.1.0").ok(), Some("xtask"));
    }
}
