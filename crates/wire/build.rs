//! Compiles the message definitions. No protocol compiler has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files =
        protox::compile(["worker.proto", "log.proto", "peer.proto", "backup.proto"], ["proto"])?;
    tonic_prost_build::configure().include_file("messages.rs").compile_fds(files)?;
    Ok(())
}
