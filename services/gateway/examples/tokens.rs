//! The tokens of texts by a model's file, without the one that begins a sequence: what `tests/python/tokenizing.py`
//! compares.
//!
//! Reads `{"model": PATH, "texts": [TEXT, …]}` and writes the ids of each text.

use std::{error::Error, io, path::PathBuf};

use gateway::text::Tokenizer;
use gguf::Header;
use serde::Deserialize;

#[derive(Deserialize)]
struct Asked {
    model: PathBuf,
    texts: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked: Asked = serde_json::from_reader(io::stdin())?;
    let tokenizer = Tokenizer::from_header(&Header::read(&asked.model)?)?;
    let mut all = vec![];
    for text in &asked.texts {
        let tokens = tokenizer.encode_as_it_is(text)?;
        all.push(tokens.into_iter().map(|token| token.0).collect::<Vec<u32>>());
    }
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}
