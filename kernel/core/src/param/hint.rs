//! "Did you mean": names close to a misspelt one.

/// True if one insertion, deletion, substitution or swap of neighbours turns one into the other.
pub fn near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (ra, rb) = (a.get(same..).unwrap_or_default(), b.get(same..).unwrap_or_default());
    match (ra, rb) {
        ([], []) => false,
        ([_, ta @ ..], [_, tb @ ..]) if ta == tb => true,
        ([_, ta @ ..], _) if ta == rb => true,
        (_, [_, tb @ ..]) if ra == tb => true,
        ([x, y, ta @ ..], [u, v, tb @ ..]) => x == v && y == u && ta == tb,
        _ => false,
    }
}

/// The known name that a name is probably meant to be. Short names have too many neighbours to guess.
pub fn guess<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known.iter().copied().find(|k| k.len() >= 3 && name.len() >= 3 && near(name, k))
}

/// A character as it is shown in a message of one line.
pub fn visible(c: char) -> impl Iterator<Item = char> {
    let plain = !c.is_control();
    std::iter::once(c).filter(move |_| plain).chain(c.escape_default().filter(move |_| !plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours() {
        for (a, b) in
            [("umdi", "umid"), ("mem", "men"), ("initt", "init"), ("int", "init"), ("qiuet", "quiet")]
        {
            assert!(near(a, b), "{a} {b}");
        }
        for (a, b) in [("init", "init"), ("unit", "inti"), ("", "ab"), ("abcd", "abdce")] {
            assert!(!near(a, b), "{a} {b}");
        }
    }
}
