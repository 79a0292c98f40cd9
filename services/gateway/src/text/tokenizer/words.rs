//! How byte-level tokenizers cut text into words before they merge, by the name that a model's file has for the way
//! (`tokenizer.ggml.pre`).
//!
//! The names are those of llama.cpp's `llama-vocab.cpp`, and so is which of them mean the same; the patterns are those
//! of the models' own tokenizers, where it has them otherwise. Patterns look ahead in one place only, so that the last
//! blank before a word goes with the word. Here they do without ([`Blanks`]), and with that they take time in
//! proportion to the text, whatever it is.

use regex::Regex;
use tokenizers::NormalizedString;

use crate::text::TextError;

/// A pattern, and what becomes of blanks that it finds.
struct Rule {
    pattern: &'static str,
    blanks: Blanks,
}

/// What becomes of a match of nothing but blanks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blanks {
    /// It is a word.
    Whole,
    /// Before a word its last blank goes with the word: `\s+(?!\S)|\s+` in patterns that look ahead.
    LastOff,
    /// The same, unless it ends with a line: `\s*[\r\n]+|\s+(?!\S)|\s+`.
    LastOffInLine,
}

/// A way to cut, by what models do.
pub(super) struct Way {
    /// One behind the other: each cuts what those before it have left whole.
    rules: &'static [Rule],
    /// Letters and their marks become one character where there is one (NFC).
    composes: bool,
    /// A word that is a token is that token, whatever merges would make of it.
    pub(super) words_are_tokens: bool,
    /// Sequences begin with a token of their own, unless the file says otherwise.
    pub(super) begins: bool,
}

const fn in_line(pattern: &'static str) -> Rule {
    Rule { pattern, blanks: Blanks::LastOffInLine }
}

const fn plain(pattern: &'static str) -> Rule {
    Rule { pattern, blanks: Blanks::Whole }
}

const GPT2: Rule = Rule {
    pattern: r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
    blanks: Blanks::LastOff,
};
const LLAMA3: Rule = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const QWEN2: Rule = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// Marks go with their letters.
const QWEN35: Rule = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// A word begins where capitals begin.
const TEKKEN: Rule = in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
/// The same with the ends of short forms, and up to three digits.
const GPT4O: Rule = in_line(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const SEED_CODER: Rule = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+",
);
const MINICPM5: Rule = in_line(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const DEEPSEEK3: Rule = in_line(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
);
/// Words of languages that have blanks between them.
const VIKING: Rule = plain(r" ?[^(\s|.,!?…。，、।۔،)]+");
const DIGIT: Rule = plain(r"\p{N}");
const DIGITS: Rule = plain(r"\p{N}+");
const THREE_DIGITS: Rule = plain(r"\p{N}{1,3}");
const THREE_ASCII_DIGITS: Rule = plain("[0-9][0-9][0-9]");
const LINE_END: Rule = plain(r"[\r\n]");
const FINAL_BLANKS: Rule = plain(r"\s+$");
const CHINESE: Rule = plain("[一-龥぀-ゟ゠-ヿ]+");
/// As DeepSeek's first tokenizers name them.
const EAST_ASIAN: Rule = plain("[一-龥ࠀ-一가-\u{d7ff}]+");
const FALCON_MARKS: Rule = plain(r"[\p{P}\$\+<=>\^~\|`]+");
const DEFAULT_MARKS: Rule = plain(r"[\p{P}\$\+<=>\^~\|]+");
const LETTERS: Rule = plain(r"\s?\p{L}+");
const MARKS: Rule = plain(r"\s?\p{P}+");
/// Letters that have a case.
const CASED_LETTERS: Rule = plain(r"\s?[\p{Lu}\p{Ll}\p{Lt}]+");
const COMMON_MARKS: Rule = plain("\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+");

const WAY: Way = Way { rules: &[], composes: false, words_are_tokens: false, begins: false };
const OF_GPT2: Way = Way { rules: &[GPT2], ..WAY };
const OF_LLAMA3: Way = Way { rules: &[LLAMA3], ..WAY };
const OF_QWEN2: Way = Way { rules: &[QWEN2], ..WAY };
const OF_GPT4O: Way = Way { rules: &[GPT4O], ..WAY };
const OF_STARCODER: Way = Way { rules: &[DIGIT, GPT2], ..WAY };
const OF_DEEPSEEK3: Way = Way { rules: &[THREE_DIGITS, CHINESE, DEEPSEEK3], ..WAY };

/// What llama.cpp does with files that do not name a way.
const OF_NOBODY: Way = Way { rules: &[DEFAULT_MARKS, GPT2, DIGITS, THREE_ASCII_DIGITS], ..WAY };

/// All ways, by the names that files have for them.
const WAYS: [(&[&str], Way); 21] = [
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        Way { words_are_tokens: true, begins: true, ..OF_LLAMA3 },
    ),
    (&["glm4", "glm5"], Way { words_are_tokens: true, ..OF_LLAMA3 }),
    (&["dbrx", "smaug-bpe", "chatglm-bpe"], OF_LLAMA3),
    (&["qwen2", "deepseek-r1-qwen", "f2llmv2"], Way { composes: true, ..OF_QWEN2 }),
    (&["megrez", "kormo", "stablelm2", "hunyuan", "solar-open", "grok-2"], OF_QWEN2),
    (&["qwen35"], Way { rules: &[QWEN35], ..WAY }),
    (&["tekken"], Way { rules: &[TEKKEN], words_are_tokens: true, begins: true, ..WAY }),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], OF_GPT4O),
    (&["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"], OF_STARCODER),
    (&["command-r"], Way { composes: true, ..OF_STARCODER }),
    (
        &[
            "gpt-2",
            "phi-2",
            "olmo",
            "jais",
            "trillion",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "granite-docling",
        ],
        OF_GPT2,
    ),
    (&["mpt"], Way { composes: true, ..OF_GPT2 }),
    (&["falcon"], Way { rules: &[FALCON_MARKS, GPT2, THREE_ASCII_DIGITS], ..WAY }),
    (
        &["deepseek-llm"],
        Way { rules: &[LINE_END, CASED_LETTERS, COMMON_MARKS, FINAL_BLANKS, EAST_ASIAN, DIGITS], ..WAY },
    ),
    (&["deepseek-coder"], Way { rules: &[LINE_END, LETTERS, MARKS, EAST_ASIAN, DIGIT], ..WAY }),
    (&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], OF_DEEPSEEK3),
    (&["seed-coder"], Way { rules: &[SEED_CODER], ..WAY }),
    (&["minicpm5"], Way { rules: &[THREE_DIGITS, MINICPM5], words_are_tokens: true, ..WAY }),
    (&["bloom", "poro-chat", "gpt3-finnish"], Way { rules: &[VIKING], ..WAY }),
    (&["viking"], Way { rules: &[VIKING, DIGIT], ..WAY }),
    (&["default"], OF_NOBODY),
];

impl Way {
    /// The way that has this name; without a name what llama.cpp does then.
    ///
    /// # Errors
    /// Names those that there are.
    pub(super) fn named(name: Option<&str>) -> Result<&'static Self, TextError> {
        let name = name.unwrap_or("default");
        let found = WAYS.iter().find(|(names, _)| names.contains(&name)).map(|(_, way)| way);
        found.ok_or_else(|| {
            let supported: Vec<&str> = WAYS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
            let supported = supported.join(", ");
            TextError::Unsupported(format!("pre-tokenizer {name} (supported: {supported})"))
        })
    }
}

/// Cuts text into words, written as merges know them: a character for each byte.
pub(super) struct Words {
    rules: Vec<(Regex, Blanks)>,
    composes: bool,
    /// By byte.
    characters: [char; 256],
}

impl Words {
    pub(super) fn new(way: &Way) -> Self {
        let compiled = |rule: &Rule| {
            (Regex::new(rule.pattern).expect("all patterns are compiled in a test"), rule.blanks)
        };
        let rules = way.rules.iter().map(compiled).collect();
        Self { rules, composes: way.composes, characters: characters() }
    }

    /// Whether letters and their marks become one character.
    pub(super) fn composes(&self) -> bool {
        self.composes
    }

    /// Gives each word of the text, in order.
    pub(super) fn each<E>(&self, text: &str, mut word: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut written = String::new();
        let mut write = |found: &str| {
            written.clear();
            written.extend(found.bytes().map(|byte| self.characters[usize::from(byte)]));
            word(&written)
        };
        if !self.composes || text.is_ascii() {
            return cut(&self.rules, text, &mut write);
        }
        cut(&self.rules, &composed(text), &mut write)
    }
}

fn cut<E>(
    rules: &[(Regex, Blanks)],
    text: &str,
    word: &mut dyn FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let Some(((regex, blanks), later)) = rules.split_first() else {
        return if text.is_empty() { Ok(()) } else { word(text) };
    };
    let mut from = 0;
    while let Some(found) = regex.find_at(text, from) {
        cut(later, &text[from..found.start()], word)?;
        let end = found.start() + kept(found.as_str(), *blanks, found.end() == text.len());
        cut(later, &text[found.start()..end], word)?;
        from = end;
    }
    cut(later, &text[from..], word)
}

/// Bytes of a match that are of the word. Blanks are matched as far as they go: what is behind them is the end, or a
/// word that the last of them goes with.
fn kept(found: &str, blanks: Blanks, at_end: bool) -> usize {
    let Some(last) = found.chars().next_back().filter(|last| last.is_whitespace()) else {
        return found.len();
    };
    let before = found.len() - last.len_utf8();
    let stays = match blanks {
        Blanks::Whole => true,
        Blanks::LastOff => false,
        Blanks::LastOffInLine => matches!(last, '\r' | '\n'),
    };
    if stays || at_end || before == 0 || !found.chars().all(char::is_whitespace) {
        return found.len();
    }
    before
}

/// Bytes of pieces that are composed at once: what the library notes for each of them takes many times their room.
const PIECE: usize = 1 << 12;

/// The text in which letters and their marks are one character where there is one.
fn composed(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let mut places = rest.char_indices().skip_while(|(place, _)| *place < PIECE);
        let end = places.find(|(_, next)| stands_alone(*next)).map_or(rest.len(), |(place, _)| place);
        let (piece, behind) = rest.split_at(end);
        match piece.is_ascii() {
            true => all.push_str(piece),
            false => all.push_str(NormalizedString::from(piece).nfc().get()),
        }
        rest = behind;
    }
    all
}

/// Whether nothing before a character can become one with it. There are more that this holds for.
fn stands_alone(character: char) -> bool {
    matches!(character, ..'\u{300}' | '\u{400}'..='\u{482}' | '一'..='\u{9fff}' | '가'..='힣')
}

/// The characters that stand for bytes in byte-level vocabularies, as GPT-2 maps them: printable Latin-1 stands for
/// itself, the other bytes for the characters from U+0100 on.
fn characters() -> [char; 256] {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => others.next().expect("there are more than 256 characters"),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let mut found = vec![];
        let Ok(()) = cut(&Words::new(Way::named(Some(name)).expect("known")).rules, text, &mut |word| {
            found.push(word.to_owned());
            Ok::<_, Infallible>(())
        });
        found
    }

    #[test]
    fn every_name_is_there_once_and_every_pattern_is_one() {
        let mut names: Vec<&str> = WAYS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for (names, way) in &WAYS {
            assert_eq!(Words::new(way).rules.len(), way.rules.len(), "{names:?}");
        }
        let unknown = Way::named(Some("klingon")).err().expect("refused").to_string();
        assert!(unknown.contains("pre-tokenizer klingon (supported: llama-bpe, llama3,"), "{unknown}");
    }

    #[test]
    fn the_last_blank_goes_with_the_word_behind_it() {
        assert_eq!(words("gpt-2", "a   b \n\n c  "), ["a", "  ", " b", " \n\n", " c", "  "]);
        assert_eq!(words("gpt-2", "\n\na"), ["\n", "\n", "a"]);
        assert_eq!(words("llama-bpe", "\n\na"), ["\n\n", "a"]);
        assert_eq!(words("llama-bpe", "a \n \t b  "), ["a", " \n", " \t", " b", "  "]);
        assert_eq!(words("llama-bpe", "  \n"), ["  \n"]);
        assert_eq!(words("gpt-2", "a\u{3000}\u{3000}b"), ["a", "\u{3000}", "\u{3000}", "b"]);
    }

    #[test]
    fn each_way_has_its_digits_marks_and_capitals() {
        assert_eq!(words("llama3", "It'S 12345"), ["It", "'S", " ", "123", "45"]);
        assert_eq!(words("deepseek-r1-qwen", "x12"), ["x", "1", "2"]);
        assert_eq!(words("smollm", "x 12"), ["x", " ", "1", "2"]);
        assert_eq!(words("tekken", "HelloWorld's 12"), ["Hello", "World", "'s", " ", "1", "2"]);
        assert_eq!(words("gpt-4o", "HelloWorld's 1234"), ["Hello", "World's", " ", "123", "4"]);
        assert_eq!(words("qwen35", "कि"), ["कि"]);
        assert_eq!(words("qwen2", "कि"), ["क", "ि"]);
        assert_eq!(words("default", "a+-b"), ["a", "+-", "b"]);
        assert_eq!(words("deepseek-coder", "a, b\n"), ["a", ",", " b", "\n"]);
    }

    #[test]
    fn letters_and_marks_are_composed_also_where_the_text_is_long() {
        let apart = "e\u{301}".repeat(PIECE) + "\u{1112}\u{1161}\u{11ab}";
        assert_eq!(composed(&apart), "é".repeat(PIECE) + "한");
        assert_eq!(composed("x한\u{11a8}"), "x한\u{11a8}", "what is whole takes nothing on");
    }

    proptest! {
        #[test]
        fn whatever_the_way_all_of_the_text_is_in_the_words(text in "[ \\n\\r\\t'a-cA-C0-9.,+äß漢한क\\u{93f}]{0,40}") {
            for (names, _) in &WAYS {
                prop_assert_eq!(words(names[0], &text).concat(), text.as_str(), "{}", names[0]);
            }
        }
    }
}
