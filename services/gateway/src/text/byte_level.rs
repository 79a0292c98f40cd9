//! The characters that stand for bytes in byte-level vocabularies, as GPT-2 maps them: printable Latin-1 stands for
//! itself, the other bytes for the characters from U+0100 on.

use std::collections::HashMap;

/// From character to byte.
#[derive(Clone, Debug)]
pub(super) struct ByteCharacters(HashMap<char, u8>);

impl ByteCharacters {
    pub(super) fn new() -> Self {
        let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let mut others = (0x100u32..).filter_map(char::from_u32);
        let mut map = HashMap::new();
        for byte in 0..=255u8 {
            let character = if printable(byte) { Some(char::from(byte)) } else { others.next() };
            map.extend(character.map(|character| (character, byte)));
        }
        Self(map)
    }

    /// The bytes that a token's text stands for. What stands for no byte stands for itself.
    pub(super) fn bytes(&self, token: &str) -> Vec<u8> {
        let mut bytes = vec![];
        for character in token.chars() {
            match self.0.get(&character) {
                Some(byte) => bytes.push(*byte),
                None => bytes.extend(character.to_string().bytes()),
            }
        }
        bytes
    }
}
