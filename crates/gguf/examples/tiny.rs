//! Writes a tiny model of every kind into a folder:
//! `cargo run -p gguf --features test-support --example tiny -- FOLDER`.

use std::{env, io, path::Path};

use gguf::tiny::cases;

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).ok_or_else(|| io::Error::other("name a folder"))?;
    for (name, tiny) in cases() {
        tiny.write(&Path::new(&folder).join(format!("{name}.gguf")))?;
    }
    Ok(())
}
