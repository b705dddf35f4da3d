//! Keys of a `vecN:` line: each is declared once with its type, range, default and a line of help, and read by its name.

use std::fmt::Write as _;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Name of an interface of the host.
    Ifname,
    /// Path on the host, 1 to `max` bytes.
    Path {
        /// Longest path in bytes.
        max: usize,
    },
    /// Any text but none.
    Text,
    /// 0 or 1 (QEMU's `off` and `on` are the same).
    Flag,
    /// Decimal number in a range.
    Number {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// C integer (decimal, 0x or 0 in front) of so many bits; a negative one is its two's complement, as UML needs it.
    Integer {
        /// 1 to 64.
        bits: u32,
    },
    /// Address or name of a host.
    Host,
    /// One of these.
    Word(&'static [&'static str]),
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Other spellings (QEMU's, iproute2's).
    pub aliases: &'static [&'static str],
    /// What its value may be.
    pub ty: Type,
    /// What holds if it is not given; empty: nothing.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
}

impl Key {
    /// A key without default or other spellings.
    pub const fn new(name: &'static str, ty: Type, help: &'static str) -> Self {
        Self { name, aliases: &[], ty, default: "", help }
    }

    /// With a default.
    pub const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// With other spellings.
    pub const fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// True if it is written like this.
    pub fn is(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }

    /// What its value may be, as an error says it.
    pub fn expected(&self) -> String {
        match self.ty {
            Type::Ifname => "the name of a host interface, 1 to 15 characters".to_owned(),
            Type::Path { max } => format!("a path on the host, 1 to {max} bytes"),
            Type::Text => "a text".to_owned(),
            Type::Flag => "0 or 1".to_owned(),
            Type::Number { min, max } => format!("a number from {min} to {max}"),
            Type::Integer { bits } => {
                format!("a number of {bits} bits, decimal, 0x... or 0...")
            }
            Type::Host => "the address or the name of a host".to_owned(),
            Type::Word(words) => words.join(" or "),
        }
    }

    fn parse(&self, text: &str) -> Option<Value> {
        let number = |n: Option<u64>| n.map(Value::Number);
        let plain = |ok: bool| ok.then(|| Value::Text(text.to_owned()));
        match self.ty {
            Type::Ifname => plain(is_ifname(text)),
            Type::Path { max } => plain((1..=max).contains(&text.len()) && !text.contains('\0')),
            Type::Text => plain(!text.is_empty()),
            Type::Flag => match text {
                "0" | "off" => Some(Value::Flag(false)),
                "1" | "on" => Some(Value::Flag(true)),
                _ => None,
            },
            Type::Number { min, max } => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                number(text.parse().ok().filter(|n| digits && (min..=max).contains(n)))
            }
            Type::Integer { bits } => number(c_integer(text, bits)),
            Type::Host => plain(
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-_%".contains(&b)),
            ),
            Type::Word(words) => plain(words.contains(&text)),
        }
    }
}

/// True for what Linux takes as the name of an interface.
pub fn is_ifname(text: &str) -> bool {
    let odd = |b: u8| b == b'/' || b == b'%' || b == b':' || b.is_ascii_whitespace() || b == 0;
    !(text.is_empty()
        || text.len() > arch::host::tap::MAX_NAME
        || text.bytes().any(odd)
        || text == "."
        || text == "..")
}

/// A C integer of at most `bits` bits: decimal, 0x or 0 in front for hexadecimal or octal; negative ones wrap.
pub fn c_integer(text: &str, bits: u32) -> Option<u64> {
    let (minus, digits) = text.strip_prefix('-').map_or((false, text), |t| (true, t));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let n = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(&digits[1..], 8).ok()?,
        None => digits.parse().ok()?,
    };
    let mask = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
    if minus {
        return (n <= (mask >> 1) + 1).then(|| n.wrapping_neg() & mask);
    }
    (n <= mask).then_some(n)
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
}

#[derive(Clone, Debug)]
struct Given {
    key: &'static Key,
    /// `key=value` as the user wrote it.
    written: String,
    value: Value,
}

/// The options of one NIC: types checked, each key at most once.
#[derive(Clone, Default, Debug)]
pub struct Options {
    given: Vec<Given>,
    /// Keys that have a default.
    known: Vec<&'static [Key]>,
}

impl Options {
    /// Reads `key=value,...`. `keys` is what this transport understands, the common ones first. `Err` is one line.
    pub fn parse(text: &str, keys: &[&'static [Key]]) -> Result<Self, String> {
        let mut this = Self { given: Vec::new(), known: keys.to_vec() };
        for part in text.split(',') {
            let (word, val) = split(part, || list(keys))?;
            let key = keys.iter().flat_map(|k| k.iter()).find(|k| k.is(word));
            let Some(key) = key else {
                return Err(format!("{part}: unknown key; expected one of {}", list(keys)));
            };
            if this.given.iter().any(|g| std::ptr::eq(g.key, key)) {
                return Err(format!("{part}: the key {} is given twice; expected it once", key.name));
            }
            let value = key.parse(val).ok_or_else(|| format!("{part}: expected {}", key.expected()))?;
            this.given.push(Given { key, written: part.to_owned(), value });
        }
        Ok(this)
    }

    fn find(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|g| g.key.name == name)
    }

    fn value(&self, name: &str) -> Option<Value> {
        if let Some(g) = self.find(name) {
            return Some(g.value.clone());
        }
        let key = self.known.iter().flat_map(|k| k.iter()).find(|k| k.name == name);
        debug_assert!(key.is_some(), "{name} is not declared");
        key.filter(|k| !k.default.is_empty()).and_then(|k| k.parse(k.default))
    }

    /// True if the user wrote the key.
    pub fn given(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// `key=value` as the user wrote it, for errors; the bare name if it was not given.
    pub fn written(&self, name: &str) -> String {
        self.find(name).map_or_else(|| name.to_owned(), |g| g.written.clone())
    }

    /// A text, path, host, word or interface.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(t)) => Some(t),
            _ => None,
        }
    }

    /// A flag; one without default is off.
    pub fn flag(&self, name: &str) -> bool {
        self.value(name) == Some(Value::Flag(true))
    }

    /// A number or an integer.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Number(n)) => Some(n),
            _ => None,
        }
    }

    /// A number that its declaration keeps below 2^32.
    pub fn u32(&self, name: &str) -> Option<u32> {
        self.number(name).and_then(|n| u32::try_from(n).ok())
    }

    /// A text that this transport cannot do without.
    pub fn require(&self, name: &str, transport: &str) -> Result<String, String> {
        self.text(name).ok_or_else(|| {
            let expected = self.known.iter().flat_map(|k| k.iter()).find(|k| k.name == name);
            let expected = expected.map_or_else(String::new, Key::expected);
            format!("transport={transport}: {name}= is missing; expected {expected}")
        })
    }

    /// A value for each direction: (receive, transmit). Either `rx_NAME` and `tx_NAME`, or `NAME` for both; one alone of
    /// the two is an error, none is `None`.
    pub fn pair(&self, name: &str) -> Result<Option<(u64, u64)>, String> {
        let (rx, tx) = (format!("rx_{name}"), format!("tx_{name}"));
        let declared = self.known.iter().flat_map(|k| k.iter()).any(|k| k.name == name);
        let both = if declared { self.find(name) } else { None };
        if let Some(g) = both {
            for other in [&rx, &tx] {
                if self.given(other) {
                    return Err(format!(
                        "{}: contradicts {}; expected one of them",
                        self.written(other),
                        g.written
                    ));
                }
            }
            let Value::Number(n) = g.value else { return Ok(None) };
            return Ok(Some((n, n)));
        }
        match (self.find(&rx).map(|g| &g.value), self.find(&tx).map(|g| &g.value)) {
            (Some(Value::Number(r)), Some(Value::Number(t))) => Ok(Some((*r, *t))),
            (Some(_), None) => {
                Err(format!("{}: {tx}= is missing; expected both or neither", self.written(&rx)))
            }
            (None, Some(_)) => {
                Err(format!("{}: {rx}= is missing; expected both or neither", self.written(&tx)))
            }
            _ => Ok(None),
        }
    }
}

/// Key and value of one part of a line.
pub fn split(part: &str, keys: impl Fn() -> String) -> Result<(&str, &str), String> {
    let (key, val) =
        part.split_once('=').ok_or_else(|| format!("'{part}': expected key=value; keys are {}", keys()))?;
    if val.contains('=') {
        return Err(format!(
            "'{part}': a value cannot contain '='; expected key=value, with a comma before the next key"
        ));
    }
    Ok((key, val))
}

/// Names of the keys, for errors.
pub fn list(keys: &[&'static [Key]]) -> String {
    let mut out = String::new();
    for k in keys.iter().flat_map(|k| k.iter()) {
        let sep = if out.is_empty() { "" } else { ", " };
        let _ = write!(out, "{sep}{}", k.name);
    }
    out
}

/// `ifname=`, of transports that need an interface of the host.
pub const IFNAME: Key = Key::new("ifname", Type::Ifname, "interface of the host");
/// `ifup=`.
pub const IFUP: Key =
    Key::new("ifup", Type::Path { max: 4095 }, "program of the host, run with the interface's name");
/// `queues=`.
pub const QUEUES: Key =
    Key::new("queues", Type::Number { min: 1, max: 8 }, "queues to the host; one a CPU if absent");
/// `ttl=` of tunnels.
pub const TTL: Key = Key::new("ttl", Type::Number { min: 1, max: 255 }, "TTL or hop limit of outer packets");
/// `tos=` of tunnels.
pub const TOS: Key = Key::new("tos", Type::Integer { bits: 8 }, "TOS or traffic class of outer packets");
/// `df=` of tunnels.
pub const DF: Key = Key::new("df", Type::Flag, "outer packets must not be fragmented");

#[cfg(test)]
mod tests {
    use super::*;

    static KEYS: [Key; 6] = [
        Key::new("n", Type::Number { min: 1, max: 9 }, "").default("4"),
        Key::new("i", Type::Integer { bits: 32 }, "").alias(&["int"]),
        Key::new("rx_key", Type::Integer { bits: 32 }, ""),
        Key::new("tx_key", Type::Integer { bits: 32 }, ""),
        Key::new("key", Type::Integer { bits: 32 }, ""),
        Key::new("f", Type::Flag, ""),
    ];

    #[test]
    fn values_by_type() {
        let o = Options::parse("int=-1,f=on", &[&KEYS]).expect("valid");
        assert_eq!((o.number("i"), o.flag("f"), o.number("n")), (Some(0xffff_ffff), true, Some(4)));
        assert_eq!(o.written("i"), "int=-1");
        for (text, bits, want) in [
            ("0x1f", 32, Some(31)),
            ("017", 32, Some(15)),
            ("4294967296", 32, None),
            ("-2147483649", 32, None),
            ("-2147483648", 32, Some(0x8000_0000)),
            ("0xffffffffffffffff", 64, Some(u64::MAX)),
            ("+1", 32, None),
            ("", 32, None),
            ("-", 32, None),
            ("0x", 32, None),
        ] {
            assert_eq!(c_integer(text, bits), want, "{text}");
        }
    }

    #[test]
    fn pairs_are_whole() {
        let pair = |t: &str| Options::parse(t, &[&KEYS]).expect("valid").pair("key");
        assert_eq!(pair("rx_key=1,tx_key=2"), Ok(Some((1, 2))));
        assert_eq!(pair("key=3"), Ok(Some((3, 3))));
        assert_eq!(pair("f=0"), Ok(None));
        assert!(pair("rx_key=1").expect_err("half").contains("tx_key= is missing"));
        assert!(pair("key=1,tx_key=2").expect_err("both").contains("contradicts key=1"));
    }
}
