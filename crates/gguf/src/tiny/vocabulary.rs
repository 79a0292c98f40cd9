//! Small vocabularies that work.

const TOKEN_NORMAL: i64 = 1;
const TOKEN_UNKNOWN: i64 = 2;
const TOKEN_CONTROL: i64 = 3;
const TOKEN_BYTE: i64 = 6;

pub(super) struct Vocabulary {
    pub tokens: Vec<String>,
    pub types: Vec<i64>,
    pub scores: Vec<f64>,
    pub merges: Vec<String>,
}

/// The printable character that stands for a byte in byte-level BPE, as GPT-2 maps them: printable Latin-1 stands for
/// itself, the others follow from U+0100 on.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (0x100u32..).map_while(char::from_u32);
    let mut character = |byte: u8| if printable(byte) { Some(char::from(byte)) } else { others.next() };
    (0..=255u8).filter_map(&mut character).collect()
}

pub(super) fn byte_level() -> Vocabulary {
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from);
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġ t", "Ġt he"].map(String::from);
    let mut tokens: Vec<String> = specials.into();
    let mut types = vec![TOKEN_CONTROL; tokens.len()];
    tokens.extend(byte_characters().into_iter().map(String::from));
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    types.resize(tokens.len(), TOKEN_NORMAL);
    Vocabulary { tokens, types, scores: vec![], merges: merges.into() }
}

pub(super) fn sentence_piece() -> Vocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut types = vec![TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), TOKEN_BYTE);
    let pieces = ["he", "ll", "hell", "hello", "▁hello", "▁w", "or", "▁wor", "▁the"];
    let characters = ('a'..='z').chain(['▁', '.', ',', '?', '!']).map(String::from);
    let mut scores = vec![0.0; tokens.len()];
    for piece in pieces.into_iter().map(String::from).chain(characters) {
        if !tokens.contains(&piece) {
            scores.push(-(scores.len() as f64));
            tokens.push(piece);
        }
    }
    types.resize(tokens.len(), TOKEN_NORMAL);
    Vocabulary { tokens, types, scores, merges: vec![] }
}
