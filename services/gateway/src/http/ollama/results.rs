//! Which call a result is of: results name calls by function, if at all.

use std::collections::{HashMap, VecDeque};

/// The calls of a conversation, and which of them have no result yet.
#[derive(Default)]
pub(super) struct Calls {
    /// The id of each call; none where it has its result.
    waiting: Vec<Option<String>>,
    /// All calls before this one have their results.
    first: usize,
    /// Places in `waiting`; some may have their results by now.
    by_id: HashMap<String, VecDeque<usize>>,
    by_name: HashMap<String, VecDeque<usize>>,
}

impl Calls {
    /// The call's id, or one that it gets.
    pub(super) fn begin(&mut self, id: Option<&str>, name: &str) -> String {
        let place = self.waiting.len();
        let id = id.map_or_else(|| format!("call_{}", place + 1), str::to_owned);
        self.by_id.entry(id.clone()).or_default().push_back(place);
        self.by_name.entry(name.to_owned()).or_default().push_back(place);
        self.waiting.push(Some(id.clone()));
        id
    }

    /// The id of the call that a result is of: the one with its id, whether there is such a call or not; else the
    /// first of that function, or else the first of all.
    pub(super) fn end(&mut self, id: Option<&str>, name: Option<&str>) -> Option<String> {
        if let Some(id) = id {
            self.end_first(|calls| calls.by_id.get_mut(id));
            return Some(id.to_owned());
        }
        let named = name.and_then(|name| self.end_first(|calls| calls.by_name.get_mut(name)));
        named.or_else(|| self.end_oldest())
    }

    /// Ends the first in a list of places that has no result yet.
    fn end_first(&mut self, list: impl Fn(&mut Self) -> Option<&mut VecDeque<usize>>) -> Option<String> {
        loop {
            let place = list(self)?.pop_front()?;
            if let Some(id) = self.waiting[place].take() {
                return Some(id);
            }
        }
    }

    fn end_oldest(&mut self) -> Option<String> {
        while let Some(call) = self.waiting.get_mut(self.first) {
            self.first += 1;
            if let Some(id) = call.take() {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_find_their_calls_by_id_by_function_or_in_order() {
        let mut calls = Calls::default();
        for (id, name) in [(Some("a"), "f"), (None, "g"), (Some("c"), "g"), (Some("d"), "h")] {
            calls.begin(id, name);
        }
        assert_eq!(calls.end(Some("c"), Some("f")).as_deref(), Some("c"));
        assert_eq!(calls.end(None, Some("g")).as_deref(), Some("call_2"));
        assert_eq!(calls.end(None, Some("g")).as_deref(), Some("a"), "no other of g waits");
        assert_eq!(calls.end(None, None).as_deref(), Some("d"));
        assert_eq!(calls.end(None, None), None);
    }

    #[test]
    fn a_result_of_a_call_that_nobody_made_takes_none_away() {
        let mut calls = Calls::default();
        calls.begin(Some("a"), "f");
        assert_eq!(calls.end(Some("odd"), Some("f")).as_deref(), Some("odd"));
        assert_eq!(calls.end(None, None).as_deref(), Some("a"));
    }
}
