//! Compiles the protocol with protox, so that no `protoc` is needed.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

const FILES: [&str; 3] =
    ["connlog/v1/connection_log.proto", "connlog/v1/directory.proto", "coder/agent/v2/agent.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
