//! A line of text that the user types.

/// Longer than this is no use.
const MOST: usize = 1000;

/// The text and where in it the next character goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Line {
    text: String,
    /// In bytes, at a character's beginning.
    at: usize,
}

impl Line {
    /// This text, to be typed on at its end.
    pub fn of(text: String) -> Self {
        Self { at: text.len(), text }
    }

    /// What was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the place where the next character goes.
    pub fn before(&self) -> &str {
        &self.text[..self.at]
    }

    /// A character was typed.
    pub fn insert(&mut self, c: char) {
        if !c.is_control() && self.text.len() < MOST {
            self.text.insert(self.at, c);
            self.at += c.len_utf8();
        }
    }

    /// Takes the character before the place away.
    pub fn erase(&mut self) {
        if self.at > 0 {
            self.left();
            self.delete();
        }
    }

    /// Takes the character at the place away.
    pub fn delete(&mut self) {
        if self.at < self.text.len() {
            self.text.remove(self.at);
        }
    }

    /// Takes all before the place away.
    pub fn erase_all(&mut self) {
        self.text.drain(..self.at);
        self.at = 0;
    }

    /// Takes the word before the place away.
    pub fn erase_word(&mut self) {
        let mut before = self.before().trim_end().char_indices().rev();
        let kept = before.find(|(_, c)| c.is_whitespace()).map_or(0, |(at, c)| at + c.len_utf8());
        self.text.drain(kept..self.at);
        self.at = kept;
    }

    /// One character to the left.
    pub fn left(&mut self) {
        self.at -= self.before().chars().next_back().map_or(0, char::len_utf8);
    }

    /// One character to the right.
    pub fn right(&mut self) {
        self.at += self.text[self.at..].chars().next().map_or(0, char::len_utf8);
    }

    /// To the beginning.
    pub fn home(&mut self) {
        self.at = 0;
    }

    /// To the end.
    pub fn end(&mut self) {
        self.at = self.text.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_changes_the_text_where_it_should() {
        let mut line = Line::default();
        "aäß日\x1b b".chars().for_each(|c| line.insert(c));
        assert_eq!(line.text(), "aäß日 b");
        line.left();
        line.left();
        line.erase();
        assert_eq!((line.text(), line.before()), ("aäß b", "aäß"));
        line.delete();
        line.right();
        line.right();
        line.erase();
        assert_eq!(line.text(), "aäß");
        line.home();
        line.erase();
        line.delete();
        line.end();
        line.insert(' ');
        line.insert('x');
        assert_eq!(line.text(), "äß x");
        line.erase_word();
        assert_eq!(line.text(), "äß ");
        line.erase_word();
        assert_eq!((line.text(), line.before()), ("", ""));
        line.erase_word();
        line.erase();
        let mut line = Line::of("abc".into());
        line.left();
        line.erase_all();
        assert_eq!((line.text(), line.before()), ("c", ""));
    }
}
