//! A picture of bar groups: one group a metric, one bar a system.

use super::stats::short;
use std::fmt::Write;

/// One group of bars under a title.
pub struct Group {
    /// What the bars show, with unit.
    pub title: String,
    /// System and value; a system that has no value stays empty.
    pub bars: Vec<(String, Option<f64>)>,
}

const COLOURS: [&str; 6] = ["#8a8a8a", "#c9a227", "#a4781f", "#4f7fb5", "#2e8b57", "#7a4fb5"];
const BAR: f64 = 22.0;
const WIDTH: f64 = 420.0;
const LEFT: f64 = 120.0;

/// The groups as an SVG document; each group has a scale of its own.
pub fn bars(heading: &str, groups: &[Group]) -> String {
    let height: f64 = 50.0 + groups.iter().map(|g| 34.0 + g.bars.len() as f64 * BAR).sum::<f64>();
    let total = LEFT + WIDTH + 90.0;
    let mut s = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total} {height}\" width=\"{total}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"16\" font-weight=\"bold\" fill=\"#222\">{}</text>\n",
        escape(heading)
    );
    let mut y = 56.0;
    for g in groups {
        let _ = writeln!(
            s,
            "<text x=\"12\" y=\"{y}\" font-weight=\"bold\" fill=\"#222\">{}</text>",
            escape(&g.title)
        );
        y += 8.0;
        let top = g.bars.iter().filter_map(|b| b.1).fold(f64::MIN_POSITIVE, f64::max);
        for (i, (name, value)) in g.bars.iter().enumerate() {
            let mid = y + BAR * 0.7;
            let _ = writeln!(
                s,
                "<text x=\"{}\" y=\"{mid}\" text-anchor=\"end\" fill=\"#222\">{}</text>",
                LEFT - 8.0,
                escape(name)
            );
            if let Some(v) = value {
                let w = (v / top * WIDTH).max(1.0);
                let colour = COLOURS[i % COLOURS.len()];
                let _ = writeln!(
                    s,
                    "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{mid}\" fill=\"#222\">{}</text>",
                    y + 2.0,
                    BAR - 4.0,
                    LEFT + w + 6.0,
                    short(*v)
                );
            }
            y += BAR;
        }
        y += 26.0;
    }
    s.push_str("</svg>\n");
    s
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
