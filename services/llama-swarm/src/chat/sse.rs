//! Server-sent events out of a byte stream, as the HTML standard describes them
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>), reduced to their
//! data: names, ids and comments are skipped.

use anyhow::{Result, ensure};

/// No event of a chat is larger; without a bound a broken server could fill the memory.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// Takes bytes as they arrive and hands out the data of each complete event.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    /// The beginning of a line whose end has not arrived yet.
    line: Vec<u8>,
    /// The event's data so far; absent before its first `data` line.
    data: Option<String>,
}

impl SseParser {
    /// The data of all events that these bytes complete.
    ///
    /// # Errors
    /// When an event is larger than it can be, or not UTF-8.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>> {
        let mut events = vec![];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            let waiting = self.line.len() + self.data.as_ref().map_or(0, String::len);
            ensure!(
                waiting <= MAX_EVENT_BYTES,
                "the server sent an event of more than {MAX_EVENT_BYTES} bytes"
            );
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                events.extend(self.on_line(std::str::from_utf8(&line)?.trim_end_matches(['\r', '\n'])));
            }
        }
        Ok(events)
    }

    /// An empty line ends an event.
    fn on_line(&mut self, line: &str) -> Option<String> {
        if line.is_empty() {
            return self.data.take();
        }
        let more = line.strip_prefix("data:")?;
        let more = more.strip_prefix(' ').unwrap_or(more);
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(more);
            }
            None => self.data = Some(more.to_owned()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hello\r\n\r\nevent: x\ndata: {\"a\": \"ü\"}\n\ndata:one\ndata: two\nid: 7\n\ndata: [DONE]\n\n";

    #[test]
    fn events_come_out_whole_wherever_the_bytes_are_cut() {
        let expected = ["{\"a\": \"ü\"}", "one\ntwo", "[DONE]"];
        for size in 1..=STREAM.len() {
            let mut parser = SseParser::default();
            let chunks = STREAM.as_bytes().chunks(size);
            let events: Vec<_> = chunks.flat_map(|chunk| parser.feed(chunk).expect("valid")).collect();
            assert_eq!(events, expected, "in chunks of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused_before_it_fills_the_memory() {
        let mut parser = SseParser::default();
        let endless = (0..100).map(|_| parser.feed(&[b'x'; 64 << 10]).is_ok());
        assert_eq!(endless.take_while(|ok| *ok).count(), MAX_EVENT_BYTES / (64 << 10));
        let mut parser = SseParser::default();
        let many_lines = (0..100_000).map(|_| parser.feed(b"data: 0123456789abcdef\n").is_ok());
        assert!(many_lines.take_while(|ok| *ok).count() < 100_000);
    }
}
