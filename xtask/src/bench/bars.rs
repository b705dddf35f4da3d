//! What `bench micro` demands, as data: each bar names a metric and how it must stand to whom.

/// Where a metric comes from and what is asked of it.
pub struct Bar {
    /// Key of the metric; for lines of `microbench` all of these words must be in its name.
    pub words: &'static [&'static str],
    /// In plain words.
    pub title: &'static str,
    /// At most this many times UML's better figure.
    pub uml: Option<f64>,
    /// At most this, in the metric's own unit.
    pub most: Option<f64>,
    /// At least this, in the metric's own unit.
    pub least: Option<f64>,
    /// Whether it must also be ahead of gVisor.
    pub gvisor: bool,
}

const fn uml(words: &'static [&'static str], title: &'static str, times: f64, gvisor: bool) -> Bar {
    Bar { words, title, uml: Some(times), most: None, least: None, gvisor }
}

/// The bars. One place in memory: they are told apart by their addresses.
pub static BARS: &[Bar] = &[
    uml(&["null"], "null system call", 0.5, true),
    uml(&["fork", "static"], "fork+exec+wait, static", 1.0 / 3.0, true),
    uml(&["fork", "dynamic"], "fork+exec+wait, dynamic", 1.0 / 3.0, true),
    uml(&["fork", "200"], "fork+exec+wait from 200 MiB", 1.0 / 3.0, true),
    uml(&["touch", "seq"], "first touch, sequential", 0.1, true),
    uml(&["touch", "mib"], "first touch, a page a MiB", 0.5, true),
    uml(&["pipe"], "pipe ping-pong", 0.5, true),
    uml(&["boot"], "boot to init", 0.25, false),
    uml(&["idle_memory"], "idle memory", 0.5, false),
    Bar {
        words: &["idle_cpu"],
        title: "idle minute",
        uml: None,
        most: Some(0.1),
        least: None,
        gvisor: false,
    },
    Bar {
        words: &["two_busy"],
        title: "two busy, speed-up",
        uml: None,
        most: None,
        least: Some(1.7),
        gvisor: false,
    },
    Bar {
        words: &["ping_p99_spin"],
        title: "ping p99, spinning",
        uml: None,
        most: Some(5000.0),
        least: None,
        gvisor: false,
    },
];

/// The bar of a metric.
pub fn of(metric: &str) -> Option<&'static Bar> {
    let name = metric.to_lowercase();
    BARS.iter().find(|b| b.words.iter().all(|w| name.contains(w)))
}

impl Bar {
    /// Whether ours holds it; `None` where a figure that it needs is missing.
    pub fn holds(&self, ours: f64, uml: Option<f64>, gvisor: Option<f64>) -> Option<bool> {
        let mut ok = true;
        if let Some(times) = self.uml {
            ok &= ours <= times * uml?;
        }
        if let Some(most) = self.most {
            ok &= ours <= most;
        }
        if let Some(least) = self.least {
            ok &= ours >= least;
        }
        if self.gvisor
            && let Some(g) = gvisor
        {
            ok &= ours < g;
        }
        Some(ok)
    }

    /// What is asked, in short.
    pub fn text(&self) -> String {
        let mut parts = Vec::new();
        if let Some(t) = self.uml {
            parts.push(format!("<= {t:.2} UML"));
        }
        if let Some(m) = self.most {
            parts.push(format!("<= {m}"));
        }
        if let Some(l) = self.least {
            parts.push(format!(">= {l}"));
        }
        if self.gvisor {
            parts.push("< gVisor".to_owned());
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn bars_are_found_and_judged() {
        let null = of("null_syscall").unwrap();
        assert_eq!(null.holds(9.0, Some(20.0), Some(100.0)), Some(true));
        assert_eq!(null.holds(11.0, Some(20.0), None), Some(false));
        assert_eq!(null.holds(1.0, None, None), None);
        assert_eq!(of("two_busy").unwrap().holds(1.8, None, None), Some(true));
        assert!(of("something_else").is_none());
    }
}
