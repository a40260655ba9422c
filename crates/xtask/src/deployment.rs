//! What is deployed: manifests against the schemas of Kubernetes, units against systemd, licences and sources of what is
//! built in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use connlog_testkit::postgres::target_dir;

use crate::install;

/// The overlays that are meant to be applied.
const OVERLAYS: [&str; 2] = ["development", "production"];

/// Checks the manifests, and the units if systemd is here.
pub(crate) fn manifests() -> Result<()> {
    let validate = install::python_tool(
        &target_dir(),
        "kubernetes-validate",
        "1.37.0",
        "checks manifests against the schemas of Kubernetes, which it carries",
    )?;
    let folder = Path::new("deploy/kubernetes");
    let rendered = target_dir().join("kubernetes");
    fs::create_dir_all(&rendered)?;
    let mut files = resources(&folder.join("base"))?;
    for overlay in OVERLAYS {
        let source = folder.join("overlays").join(overlay);
        if let Ok(output) = Command::new("kubectl").arg("kustomize").arg(&source).output() {
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "kubectl kustomize {}: {text}", source.display());
            let file = rendered.join(format!("{overlay}.yaml"));
            fs::write(&file, &output.stdout)?;
            files.push(file);
        } else {
            println!("kubectl is not installed: {} is checked in parts", source.display());
            files.extend(resources(&source)?);
        }
    }
    let output = Command::new(validate).args(["--strict", "--quiet"]).args(&files).output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "manifests are wrong: {}", String::from_utf8_lossy(&output.stderr));
    println!("{} files of manifests are right", files.len());
    units()
}

/// Files with whole resources: no kustomizations, and no patches, which are lists.
fn resources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let file = entry?.path();
        let text = fs::read_to_string(&file)?;
        let is_resource = text.lines().any(|line| line.starts_with("kind: ")) && !text.contains("kind: Kustomization");
        if is_resource {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn units() -> Result<()> {
    let mut checked = 0;
    for entry in fs::read_dir("deploy/systemd")? {
        let unit = entry?.path();
        let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&unit).output() else {
            println!("systemd is not installed: its units are not checked");
            return Ok(());
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // The programs are not where they will be.
        let mut wrong = said.lines().filter(|line| line.contains("connlog") && !line.contains("is not executable"));
        ensure!(wrong.next().is_none(), "{}: {said}", unit.display());
        checked += 1;
    }
    println!("{checked} units are right");
    Ok(())
}

/// Licences, bans and sources of all dependencies.
pub(crate) fn dependencies() -> Result<()> {
    let deny =
        install::cargo_tool("cargo-deny", "0.20.2", "checks licences and sources of what is built into connlog")?;
    let status = Command::new(deny)
        .args(["--config", ".cargo/deny.toml", "--locked", "check", "bans", "licenses", "sources"])
        .status()?;
    ensure!(status.success(), "a dependency is not what .cargo/deny.toml allows");
    Ok(())
}
