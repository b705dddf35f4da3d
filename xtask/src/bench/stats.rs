//! Medians and spreads of few samples.

/// Median, least and greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    /// The middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// Of samples that are numbers; `None` if there are none.
pub fn stat(samples: impl IntoIterator<Item = f64>) -> Option<Stat> {
    let mut v: Vec<f64> = samples.into_iter().filter(|x| x.is_finite()).collect();
    v.sort_by(f64::total_cmp);
    let (min, max) = (*v.first()?, *v.last()?);
    let mid = v.len() / 2;
    let median = if v.len() % 2 == 1 { *v.get(mid)? } else { (v.get(mid - 1)? + v.get(mid)?) / 2.0 };
    Some(Stat { median, min, max })
}

/// The sample below which the share `q` (0 to 1) of all lies.
pub fn quantile(samples: &[f64], q: f64) -> Option<f64> {
    let mut v = samples.to_vec();
    v.sort_by(f64::total_cmp);
    let at = (q * (v.len().checked_sub(1)?) as f64).round() as usize;
    v.get(at).copied()
}

/// A figure with about three digits.
pub fn short(x: f64) -> String {
    let a = x.abs();
    if a >= 100.0 {
        format!("{x:.0}")
    } else if a >= 10.0 {
        format!("{x:.1}")
    } else if a >= 0.01 || a == 0.0 {
        format!("{x:.2}")
    } else {
        format!("{x:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::{quantile, short, stat};

    #[test]
    fn medians() {
        assert_eq!(stat([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(stat([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert!(stat([]).is_none());
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.99), Some(5.0));
        assert_eq!(short(12.345), "12.3");
    }
}
