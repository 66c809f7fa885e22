//! Compiles the two .proto files into messages, a client, a server and a descriptor set.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

const FILES: [&str; 2] = ["grpc_service.proto", "model_config.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=inference");
    let descriptors = protox::compile(FILES, ["inference"])?;
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?;
    fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Tensor bytes stay the buffer that the socket filled: `Bytes`, never a copied `Vec<u8>`.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
