//! Tells calls of functions from text, as it comes. What looked like a call and is none is text as it was.

mod json;
mod pythonic;
mod read;

#[cfg(test)]
mod tests;

use json::JsonCall;
use pythonic::PythonCall;
use read::{Read, Then};

use super::format::{Marks, ToolFormat};

/// A piece of a message in which functions may be called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Said(String),
    /// A call begins; calls are counted from 0.
    Call {
        index: u32,
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        index: u32,
        text: String,
    },
}

/// Where in the text it is.
#[derive(Clone, Debug)]
enum Place {
    /// Outside of calls. Held are blanks, and behind them what may be an opening mark.
    Text,
    /// Where a call or a list of calls must begin. Held is all since the text.
    Begin,
    /// In a call. Held is all since the text, until it is certain that it is one.
    Json(JsonCall),
    Python(PythonCall),
    /// Behind a call. Held are blanks and commas, and behind them what may be a closing mark.
    After,
}

/// Whether a character was taken, or is to be looked at again where it is now.
type Taken = bool;

/// Tells calls from text. What comes out does not depend on how the text was cut.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    python: bool,
    marks: Marks,
    /// What may be called.
    names: Vec<String>,
    /// Nothing comes behind the first call.
    only_one: bool,
    place: Place,
    held: String,
    /// Bytes at the end of what is held that may be the beginning of a mark.
    mark: usize,
    /// Nothing but blanks came yet.
    fresh: bool,
    in_list: bool,
    /// No text came since the last call.
    behind_call: bool,
    begun: u32,
    /// Calls whose arguments have come to their end.
    ended: u32,
    /// Those of them whose arguments are a JSON object.
    complete: u32,
    /// Of the call that was begun last, as far as they came.
    arguments: String,
    out: Vec<Piece>,
}

impl Calls {
    pub(super) fn new(format: ToolFormat, names: Vec<String>, only_one: bool) -> Self {
        Self {
            python: format == ToolFormat::Pythonic,
            marks: format.marks(),
            names,
            only_one,
            place: Place::Text,
            held: String::new(),
            mark: 0,
            fresh: true,
            in_list: false,
            behind_call: false,
            begun: 0,
            ended: 0,
            complete: 0,
            arguments: String::new(),
            out: vec![],
        }
    }

    /// There are calls, and each of them can be carried out: its arguments are all there and are a JSON object.
    pub(super) fn can_be_carried_out(&self) -> bool {
        self.begun > 0 && self.complete == self.begun
    }

    /// Nothing that comes is told any more.
    pub(super) fn is_over(&self) -> bool {
        self.only_one && self.ended > 0
    }

    /// What can be told now.
    pub(super) fn push(&mut self, text: &str) -> Vec<Piece> {
        for c in text.chars() {
            if self.is_over() {
                break;
            }
            // Each place that does not take it leads on to one that does.
            while !self.take(c) {}
        }
        std::mem::take(&mut self.out)
    }

    /// What was held back, at the end. What separates calls and closes them is no text.
    pub(super) fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        let no_text = self.behind_call && held.trim().is_empty();
        if !matches!(self.place, Place::After) && !no_text {
            self.say(&held);
        }
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, c: char) -> Taken {
        match std::mem::replace(&mut self.place, Place::Text) {
            Place::Text => self.in_text(c),
            Place::Begin => self.at_begin(c),
            Place::After => self.go_on_behind(c),
            Place::Json(mut call) => {
                let read = call.push(c, &self.names);
                let begun = call.has_begun();
                self.in_call(c, read, begun, Place::Json(call))
            }
            Place::Python(mut call) => {
                let read = call.push(c, &self.names);
                self.in_call(c, read, false, Place::Python(call))
            }
        }
    }

    fn in_text(&mut self, c: char) -> Taken {
        let Marks { open, bare, .. } = self.marks;
        if open[self.mark..].starts_with(c) {
            self.held.push(c);
            self.mark += c.len_utf8();
            if self.mark == open.len() {
                self.mark = 0;
                self.place = Place::Begin;
            }
            return true;
        }
        if self.mark > 0 {
            // No mark has its first character once more, so another can begin only with this one.
            self.reject();
            return false;
        }
        if c.is_whitespace() {
            self.held.push(c);
            return true;
        }
        if self.fresh && bare && (c == '[' || (c == '{' && !self.python)) {
            self.place = Place::Begin;
            return false;
        }
        self.held.push(c);
        self.reject();
        true
    }

    fn at_begin(&mut self, c: char) -> Taken {
        self.place = match c {
            _ if c.is_whitespace() => Place::Begin,
            '[' if !self.in_list => {
                self.in_list = true;
                Place::Begin
            }
            '{' if !self.python => {
                self.place = Place::Json(JsonCall::default());
                return false;
            }
            _ if self.python && self.in_list && PythonCall::may_begin(c) => {
                self.place = Place::Python(PythonCall::default());
                return false;
            }
            _ => {
                self.reject();
                return false;
            }
        };
        self.held.push(c);
        true
    }

    /// Goes on by what a call has become with the character.
    fn in_call(&mut self, c: char, read: Read, begun: bool, place: Place) -> Taken {
        if read.then == Then::Wrong {
            self.reject();
            return false;
        }
        if let Some(name) = read.begins {
            self.held.clear();
            self.arguments.clear();
            (self.fresh, self.behind_call) = (false, true);
            self.out.push(Piece::Call { index: self.begun, name });
            self.begun += 1;
        } else if !begun {
            self.held.push(c);
        }
        if !read.arguments.is_empty() {
            self.argue(&read.arguments);
        }
        if read.completes {
            self.ended += 1;
            self.complete += u32::from(read::is_object(&self.arguments));
        }
        self.place = if read.then == Then::More { place } else { Place::After };
        read.then != Then::EndsBefore
    }

    fn go_on_behind(&mut self, c: char) -> Taken {
        let close = self.marks.close.unwrap_or_default();
        if close[self.mark..].starts_with(c) {
            self.held.push(c);
            self.mark += c.len_utf8();
            self.place = Place::After;
            if self.mark == close.len() {
                self.held.clear();
                self.mark = 0;
                self.in_list = false;
                self.place = Place::Text;
            }
            return true;
        }
        match c {
            _ if self.mark > 0 => self.leave_calls(),
            ',' if self.in_list => self.place = Place::Begin,
            ']' if self.in_list => {
                self.in_list = false;
                self.held.clear();
                self.place = Place::After;
                return true;
            }
            '{' if !self.in_list && !self.python => self.place = Place::Begin,
            // Looked through at the first that separates and at the second, which ends the calls.
            ',' | ';' if !self.held.contains([',', ';']) => self.place = Place::After,
            _ if c.is_whitespace() => self.place = Place::After,
            _ => self.leave_calls(),
        }
        let taken = c != '{' && !matches!(self.place, Place::Text);
        if taken {
            self.held.push(c);
        }
        taken
    }

    /// Text goes on. Of what was held, only blanks and the beginning of an opening mark may belong to more calls.
    fn leave_calls(&mut self) {
        let kept = self.held.rfind([',', ';']).map_or(0, |place| place + 1);
        let kept = self.held.split_off(kept);
        self.reject();
        self.held = kept;
        match self.held.trim_start() {
            begun if self.marks.open.starts_with(begun) => self.mark = begun.len(),
            _ => self.reject(),
        }
    }

    /// What was held is no call.
    fn reject(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.mark = 0;
        self.say(&held);
        self.in_list = false;
        self.place = Place::Text;
    }

    fn say(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        (self.fresh, self.behind_call) = (false, false);
        match self.out.last_mut() {
            Some(Piece::Said(said)) => said.push_str(text),
            _ => self.out.push(Piece::Said(text.into())),
        }
    }

    /// More arguments of the call that was begun last.
    fn argue(&mut self, more: &str) {
        self.arguments.push_str(more);
        match self.out.last_mut() {
            Some(Piece::Arguments { text, .. }) => text.push_str(more),
            _ => self.out.push(Piece::Arguments { index: self.begun - 1, text: more.into() }),
        }
    }
}
