//! Stop strings: the text ends before the first of them, and no part of one is ever shown.

/// Holds back what may be the beginning of a stop string.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    waiting: String,
}

impl StopMatcher {
    /// Empty stop strings are of no use and left out.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, waiting: String::new() }
    }

    /// The text that may be shown now, and whether a stop string was found behind it. Nothing may be pushed then.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.waiting.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.waiting.find(stop.as_str())).min();
        if let Some(place) = found {
            self.waiting.truncate(place);
            return (std::mem::take(&mut self.waiting), true);
        }
        let held = self.stops.iter().map(|stop| self.overlap(stop)).max().unwrap_or(0);
        let shown = self.waiting.drain(..self.waiting.len() - held).collect();
        (shown, false)
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.waiting)
    }

    /// Length of the longest end of the waiting text that is a beginning of `stop`.
    fn overlap(&self, stop: &str) -> usize {
        let ends = (0..self.waiting.len()).filter(|place| self.waiting.is_char_boundary(*place));
        let mut fitting = ends.filter(|place| stop.starts_with(&self.waiting[*place..]));
        fitting.next().map_or(0, |place| self.waiting.len() - place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[String], parts: &[String]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops);
        let mut out = String::new();
        for part in parts {
            let (shown, stopped) = matcher.push(part);
            out += &shown;
            if stopped {
                return (out, true);
            }
        }
        (out + &matcher.finish(), false)
    }

    #[test]
    fn a_stop_string_split_over_parts_never_shows() {
        let mut matcher = StopMatcher::new(&["END".into()]);
        assert_eq!(matcher.push("a E"), ("a ".into(), false));
        assert_eq!(matcher.push("N"), (String::new(), false));
        assert_eq!(matcher.push("x E"), ("ENx ".into(), false));
        assert_eq!(matcher.push("ND b"), (String::new(), true));
    }

    proptest! {
        #[test]
        fn the_text_ends_before_the_first_stop(
            parts in proptest::collection::vec("[abc€]{0,4}", 0..12),
            stops in proptest::collection::vec("[abc€]{1,4}", 0..4),
        ) {
            let whole: String = parts.concat();
            let first = stops.iter().filter_map(|stop| whole.find(stop.as_str())).min();
            let (shown, stopped) = run(&stops, &parts);
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(shown.as_str(), &whole[..first.unwrap_or(whole.len())]);
        }
    }
}
