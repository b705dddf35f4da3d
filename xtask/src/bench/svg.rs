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
const SPACE: f64 = 90.0;

/// The groups below each other as an SVG document; each group has a scale of its own.
pub fn bars(heading: &str, groups: &[Group]) -> String {
    let body = column(0.0, WIDTH, groups, None);
    document(heading, LEFT + WIDTH + SPACE, height(groups), &body)
}

/// Columns of groups side by side; each column has one scale, so it should hold one metric.
pub fn columns(heading: &str, columns: &[Vec<Group>]) -> String {
    let width = LEFT + WIDTH / 2.0 + SPACE;
    let mut body = String::new();
    for (i, groups) in columns.iter().enumerate() {
        let top = groups.iter().map(Group::top).fold(f64::MIN_POSITIVE, f64::max);
        body.push_str(&column(i as f64 * width, WIDTH / 2.0, groups, Some(top)));
    }
    let height = columns.iter().map(|g| height(g)).fold(0.0, f64::max);
    document(heading, columns.len() as f64 * width, height, &body)
}

fn height(groups: &[Group]) -> f64 {
    50.0 + groups.iter().map(|g| 34.0 + g.bars.len() as f64 * BAR).sum::<f64>()
}

fn document(heading: &str, width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"16\" font-weight=\"bold\" fill=\"#222\">{}</text>\n{body}</svg>\n",
        escape(heading)
    )
}

impl Group {
    fn top(&self) -> f64 {
        self.bars.iter().filter_map(|b| b.1).fold(f64::MIN_POSITIVE, f64::max)
    }
}

/// Groups below each other from `x` on, bars of at most `width`; `top` is the value of the longest one.
fn column(x: f64, width: f64, groups: &[Group], top: Option<f64>) -> String {
    let mut s = String::new();
    let left = x + LEFT;
    let mut y = 56.0;
    for g in groups {
        let _ = writeln!(
            s,
            "<text x=\"{}\" y=\"{y}\" font-weight=\"bold\" fill=\"#222\">{}</text>",
            x + 12.0,
            escape(&g.title)
        );
        y += 8.0;
        let top = top.unwrap_or(g.top());
        for (i, (name, value)) in g.bars.iter().enumerate() {
            let mid = y + BAR * 0.7;
            let _ = writeln!(
                s,
                "<text x=\"{}\" y=\"{mid}\" text-anchor=\"end\" fill=\"#222\">{}</text>",
                left - 8.0,
                escape(name)
            );
            if let Some(v) = value {
                let w = (v / top * width).max(1.0);
                let colour = COLOURS[i % COLOURS.len()];
                let _ = writeln!(
                    s,
                    "<rect x=\"{left}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{mid}\" fill=\"#222\">{}</text>",
                    y + 2.0,
                    BAR - 4.0,
                    left + w + 6.0,
                    short(*v)
                );
            }
            y += BAR;
        }
        y += 26.0;
    }
    s
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
