//! How an announcement's text and its signature travel together. What is signed and by whom is the network's business.

const FIELD: &[u8] = b",\"signature\":\"";
const END: &[u8] = b"\"}";
/// Bytes of an Ed25519 signature.
const SIGNATURE: usize = 64;

/// The text of a JSON object, and a signature of it. It is the text that is signed, not its meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedText {
    /// The object without its signature, byte for byte as it was signed.
    pub object: Vec<u8>,
    /// An Ed25519 signature.
    pub signature: [u8; SIGNATURE],
}

impl SignedText {
    /// Takes a value apart whose last field is `signature`, with 128 lower-case hexadecimal digits.
    #[must_use]
    pub fn split(value: &[u8]) -> Option<Self> {
        let rest = value.strip_suffix(END)?;
        let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(2 * SIGNATURE)?)?;
        let object = [rest.strip_suffix(FIELD)?, b"}"].concat();
        // One text for one signature.
        if digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut signature = [0; SIGNATURE];
        hex::decode_to_slice(digits, &mut signature).ok()?;
        Some(Self { object, signature })
    }

    /// One value: the object with `signature` as its last field.
    #[must_use]
    pub fn join(self) -> Vec<u8> {
        let mut value = self.object;
        value.pop();
        value.extend_from_slice(FIELD);
        value.extend_from_slice(hex::encode(self.signature).as_bytes());
        value.extend_from_slice(END);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_split_again() {
        let text = SignedText { object: br#"{"a":1}"#.to_vec(), signature: [0xa5; SIGNATURE] };
        let value = text.clone().join();
        assert_eq!(value, format!(r#"{{"a":1,"signature":"{}"}}"#, "a5".repeat(SIGNATURE)).into_bytes());
        assert_eq!(SignedText::split(&value), Some(text));
    }

    #[test]
    fn what_is_no_signature_is_not_taken_for_one() {
        let with = |digits: &str, end: &str| format!(r#"{{"a":1,"signature":"{digits}"{end}"#).into_bytes();
        assert!(SignedText::split(&with(&"a5".repeat(64), "}")).is_some());
        let wrong = [
            with(&"A5".repeat(64), "}"),
            with(&"a5".repeat(63), "}"),
            with(&"a5".repeat(65), "}"),
            with(&"a5".repeat(64), ",\"b\":1}"),
            with(&"a5".repeat(64), "} "),
        ];
        assert!(wrong.iter().all(|value| SignedText::split(value).is_none()));
    }
}
