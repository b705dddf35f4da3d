//! JSON as far as `cargo metadata` needs it: a value type and a reader (RFC 8259), no writer.

use std::collections::BTreeMap;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// null
    Null,
    /// true, false
    Bool(bool),
    /// Any number.
    Num(f64),
    /// A string, escapes resolved.
    Str(String),
    /// An array.
    Arr(Vec<Json>),
    /// An object; of equal keys the last one counts.
    Obj(BTreeMap<String, Json>),
}

impl Json {
    /// Reads one value; `None` if the text is not JSON.
    pub fn parse(text: &str) -> Option<Self> {
        let mut r = Reader { rest: text.as_bytes(), depth: 0 };
        let v = r.value()?;
        r.blank();
        r.rest.is_empty().then_some(v)
    }

    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Obj(m) => m.get(key),
            _ => None,
        }
    }

    /// A string's text.
    pub fn str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The elements of an array; none for anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Arr(v) => v,
            _ => &[],
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl Reader<'_> {
    fn blank(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', tail @ ..] = self.rest {
            self.rest = tail;
        }
    }

    fn eat(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn value(&mut self) -> Option<Json> {
        self.depth += 1;
        if self.depth > 100 {
            return None;
        }
        self.blank();
        let v = match self.rest.first()? {
            b'n' => self.eat(b"null").map(|()| Json::Null),
            b't' => self.eat(b"true").map(|()| Json::Bool(true)),
            b'f' => self.eat(b"false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::Str),
            b'[' => self.array(),
            b'{' => self.object(),
            _ => self.number(),
        };
        self.depth -= 1;
        v
    }

    fn array(&mut self) -> Option<Json> {
        self.eat(b"[")?;
        let mut out = Vec::new();
        self.blank();
        if self.eat(b"]").is_some() {
            return Some(Json::Arr(out));
        }
        loop {
            out.push(self.value()?);
            self.blank();
            if self.eat(b"]").is_some() {
                return Some(Json::Arr(out));
            }
            self.eat(b",")?;
        }
    }

    fn object(&mut self) -> Option<Json> {
        self.eat(b"{")?;
        let mut out = BTreeMap::new();
        self.blank();
        if self.eat(b"}").is_some() {
            return Some(Json::Obj(out));
        }
        loop {
            self.blank();
            let key = self.string()?;
            self.blank();
            self.eat(b":")?;
            out.insert(key, self.value()?);
            self.blank();
            if self.eat(b"}").is_some() {
                return Some(Json::Obj(out));
            }
            self.eat(b",")?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let len = self.rest.iter().take_while(|b| b"+-.eE0123456789".contains(b)).count();
        let (num, tail) = self.rest.split_at(len);
        self.rest = tail;
        std::str::from_utf8(num).ok()?.parse().ok().map(Json::Num)
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b"\"")?;
        let mut out = Vec::new();
        loop {
            let (first, tail) = self.rest.split_first()?;
            self.rest = tail;
            match first {
                b'"' => return String::from_utf8(out).ok(),
                b'\\' => {
                    let (e, tail) = self.rest.split_first()?;
                    self.rest = tail;
                    let c = match e {
                        b'n' => '\n',
                        b't' => '\t',
                        b'r' => '\r',
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'u' => self.unicode()?,
                        c => char::from(*c),
                    };
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                b => out.push(*b),
            }
        }
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.eat(b"\\u")?;
        let second = self.hex4()?.checked_sub(0xdc00)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second & 0x3ff))
    }

    fn hex4(&mut self) -> Option<u32> {
        let (hex, tail) = self.rest.split_at_checked(4)?;
        self.rest = tail;
        u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn reads_values() {
        let v = Json::parse(r#" {"a": [1, -2.5e3, null, true], "b": "x\n\u00e9\ud83d\ude00\"", "c": {}} "#)
            .unwrap();
        assert_eq!(v.get("a").unwrap().items()[1], Json::Num(-2500.0));
        assert_eq!(v.get("b").unwrap().str(), Some("x\né😀\""));
        for bad in ["", "{", "[1,]", "\"\\u12\"", "nul", "1 2", "\"\\ud800x\""] {
            assert!(Json::parse(bad).is_none(), "{bad}");
        }
        assert!(Json::parse(&"[".repeat(100_000)).is_none());
    }
}
