//! Stop strings: the text ends before the one that is complete first, and no part of one is ever shown.

/// Holds back what may be the beginning of a stop string.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    waiting: String,
    found: Option<String>,
}

impl StopMatcher {
    /// Empty stop strings are of no use and left out.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, waiting: String::new(), found: None }
    }

    /// The text that may be shown now, and whether a stop string was found behind it. Nothing may be pushed then.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.waiting.push_str(text);
        if let Some((place, stop)) = first(&self.stops, &self.waiting) {
            self.found = Some(stop.to_owned());
            self.waiting.truncate(place);
            return (std::mem::take(&mut self.waiting), true);
        }
        let held = self.stops.iter().map(|stop| self.overlap(stop)).max().unwrap_or(0);
        let shown = self.waiting.drain(..self.waiting.len() - held).collect();
        (shown, false)
    }

    /// The stop string that was found.
    #[must_use]
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
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

/// The stop string that is complete first, and where it begins; of several that end at one place, the longest. So the
/// result does not depend on how the text is split into tokens.
fn first<'a>(stops: &'a [String], text: &str) -> Option<(usize, &'a str)> {
    let places = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop.as_str())));
    places.min_by_key(|(start, stop)| (start + stop.len(), *start))
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
        assert_eq!(matcher.found(), None);
        assert_eq!(matcher.push("ND b"), (String::new(), true));
        assert_eq!(matcher.found(), Some("END"));
    }

    #[test]
    fn a_stop_within_another_ends_the_text_however_it_is_split() {
        let stops = ["aXa".into(), "X".into()];
        assert_eq!(run(&stops, &["a".into(), "X".into(), "aa".into()]), ("a".into(), true));
        assert_eq!(run(&stops, &["aXaa".into()]), ("a".into(), true));
    }

    proptest! {
        #[test]
        fn the_text_ends_before_the_stop_that_is_complete_first(
            parts in proptest::collection::vec("[abc€]{0,4}", 0..12),
            stops in proptest::collection::vec("[abc€]{1,4}", 0..4),
        ) {
            let whole: String = parts.concat();
            let first = (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)).find_map(|end| {
                let ending = stops.iter().filter(|stop| whole[..end].ends_with(stop.as_str()));
                ending.map(|stop| end - stop.len()).min()
            });
            let (shown, stopped) = run(&stops, &parts);
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(shown.as_str(), &whole[..first.unwrap_or(whole.len())]);
        }
    }
}
