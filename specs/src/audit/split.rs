//! Audit events out of bytes, wherever one of them is damaged.

/// Longer events are passed over, in bytes: what they hold beside bodies is small, and bodies are a few MiB at most.
const VALUE_AT_MOST: usize = 16 << 20;

/// Splits bytes into JSON objects, one per line or spread over several lines, and lists of events into the events.
///
/// Damage ends where an object begins at the start of a line: pretty-printed JSON indents all but the outermost.
#[derive(Debug)]
pub struct Splitter {
    value: Vec<u8>,
    state: State,
    /// How many brackets are open.
    depth: u32,
    /// The last string of the outermost object was `items`, as of a list of events.
    items: bool,
    /// Where the events of a list are put in `value`.
    list: Option<usize>,
    too_long: bool,
    /// Of the byte that comes next.
    line: u64,
    /// In which the value begins.
    began: u64,
    line_start: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// No JSON; until the line ends.
    Rubbish,
    Structure,
    Text,
    Escape,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A JSON object as far as brackets tell. A list comes after its events, and without them.
    Object {
        /// The line that it begins in, from 1.
        line: u64,
        /// Its bytes.
        json: &'a [u8],
    },
    /// What is none.
    Damage {
        /// The line that it begins in, from 1.
        line: u64,
        /// Why.
        why: Damage,
    },
}

/// Why something isn't an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It doesn't begin as one.
    #[error("this is not JSON")]
    Rubbish,
    /// Its end is missing.
    #[error("its end is missing")]
    Cut,
    /// It is too large.
    #[error("it is longer than {} MiB", VALUE_AT_MOST >> 20)]
    TooLong,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            value: Vec::new(),
            state: State::Between,
            depth: 0,
            items: false,
            list: None,
            too_long: false,
            line: 1,
            began: 1,
            line_start: true,
        }
    }
}

impl Splitter {
    /// Takes the next bytes, and gives what they complete.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some(first) = rest.first().copied() {
            // What needs no look: a string's inside, and a line that is passed over.
            let plain = match self.state {
                State::Text => rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n')).unwrap_or(rest.len()),
                State::Rubbish => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
                _ => 0,
            };
            if plain > 0 {
                self.keep(&rest[..plain]);
                rest = &rest[plain..];
                continue;
            }
            self.take(first, &mut each);
            self.line_start = first == b'\n';
            self.line += u64::from(self.line_start);
            rest = &rest[1..];
        }
    }

    /// Nothing follows: what isn't complete is cut. Lines are counted from 1 again.
    pub fn end(&mut self, mut each: impl FnMut(Piece<'_>)) {
        if self.depth > 0 {
            each(self.damage(Damage::Cut));
        }
        *self = Self { value: std::mem::take(&mut self.value), ..Self::default() };
        self.reset();
    }

    fn take(&mut self, byte: u8, each: &mut impl FnMut(Piece<'_>)) {
        match (self.state, byte) {
            (State::Between, b'{') => self.begin(),
            // A log that was cut to nothing while it was written to begins with zeros.
            (State::Between, b' ' | b'\t' | b'\r' | b'\n' | 0) => {}
            (State::Between, _) => {
                self.began = self.line;
                self.state = State::Rubbish;
                each(self.damage(Damage::Rubbish));
            }
            (State::Rubbish, b'\n') => self.state = State::Between,
            (State::Rubbish, _) => {}
            (State::Escape | State::Text, b'\n') => {
                each(self.damage(Damage::Cut));
                self.reset();
            }
            (State::Escape, _) => {
                self.keep(&[byte]);
                self.state = State::Text;
            }
            (State::Text, b'\\') => {
                self.keep(&[byte]);
                self.state = State::Escape;
            }
            (State::Text, _) => {
                self.keep(&[byte]);
                if byte == b'"' {
                    self.state = State::Structure;
                    self.items = self.depth == 1 && self.value.ends_with(b"\"items\"");
                }
            }
            (State::Structure, _) => self.structure(byte, each),
        }
    }

    fn structure(&mut self, byte: u8, each: &mut impl FnMut(Piece<'_>)) {
        let in_list = self.list.is_some() && self.depth == 2;
        match byte {
            b'{' if self.line_start && !in_list => {
                each(self.damage(Damage::Cut));
                self.reset();
                self.begin();
            }
            b'{' | b'[' => {
                if in_list {
                    self.began = self.line;
                }
                self.keep(&[byte]);
                if byte == b'[' && self.depth == 1 && self.items && self.list.is_none() {
                    self.list = Some(self.value.len());
                }
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                self.keep(&[byte]);
                self.depth -= 1;
                match (self.depth, self.list) {
                    (0, _) => self.emit(0, each),
                    (1, Some(_)) => self.list = None,
                    (2, Some(from)) => self.emit(from, each),
                    _ => {}
                }
            }
            b'"' => {
                self.keep(&[byte]);
                self.state = State::Text;
            }
            // What lies between a list's events would pile up.
            b',' | b' ' | b'\t' | b'\r' | b'\n' if in_list => {}
            _ => self.keep(&[byte]),
        }
    }

    fn begin(&mut self) {
        self.began = self.line;
        self.value.push(b'{');
        self.depth = 1;
        self.state = State::Structure;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.state == State::Rubbish || self.too_long {
            return;
        }
        if self.value.len() + bytes.len() > VALUE_AT_MOST {
            self.too_long = true;
            self.value.truncate(self.list.unwrap_or(0));
            return;
        }
        self.value.extend_from_slice(bytes);
    }

    /// What stands in `value` from there on is complete.
    fn emit(&mut self, from: usize, each: &mut impl FnMut(Piece<'_>)) {
        let line = self.began;
        let too_long = std::mem::take(&mut self.too_long);
        each(if too_long {
            Piece::Damage { line, why: Damage::TooLong }
        } else {
            Piece::Object { line, json: &self.value[from..] }
        });
        self.value.truncate(from);
        if from == 0 {
            self.reset();
        }
    }

    fn damage(&self, why: Damage) -> Piece<'static> {
        Piece::Damage { line: self.began, why: if self.too_long { Damage::TooLong } else { why } }
    }

    fn reset(&mut self) {
        // One large event among many small ones need not keep its memory.
        self.value.clear();
        self.value.shrink_to(1 << 20);
        (self.state, self.depth) = (State::Between, 0);
        (self.items, self.list, self.too_long) = (false, None, false);
    }
}
