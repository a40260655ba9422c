//! The protobuf and gRPC types of connlog, generated from `proto/`.
//!
//! What the messages mean, their limits, and the answers of the services are described in `proto/README.md`.

/// connlog's own API, `connlog.v1`.
pub mod v1 {
    #![expect(clippy::all, clippy::pedantic, reason = "the code is generated")]
    tonic::include_proto!("connlog.v1");
}

/// The agent API that existing agents speak, `coder.agent.v2`.
pub mod coder {
    #![expect(clippy::all, clippy::pedantic, reason = "the code is generated")]
    tonic::include_proto!("coder.agent.v2");
}

/// The encoded descriptors of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
