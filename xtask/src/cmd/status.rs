//! `xtask status`: where we differ from Linux, collected from `DIFFERS:` marks in the source.

use crate::paths;
use anyhow::Result;

/// Prints the marks as a markdown list.
pub fn run() -> Result<()> {
    let mut count = 0;
    println!("# Differences from Linux\n");
    for folder in ["kernel", "net", "drivers", "arch"] {
        for file in tests::workspace::rust_files(folder) {
            let text = std::fs::read_to_string(paths::root().join(&file))?;
            let lines: Vec<&str> = text.lines().collect();
            for (i, line) in lines.iter().enumerate() {
                let Some((_, mark)) = line.split_once("DIFFERS:") else { continue };
                // The rest of the comment belongs to the mark.
                let more = lines.get(i + 1..).unwrap_or_default().iter().map(|l| l.trim());
                let more = more.take_while(|l| l.starts_with("//") && !l.contains("DIFFERS:"));
                let more: Vec<&str> = more.map(|l| l.trim_start_matches(['/', '!']).trim()).collect();
                println!("- {}:{}: {} {}", file.display(), i + 1, mark.trim(), more.join(" ").trim());
                count += 1;
            }
        }
    }
    eprintln!("status: {count} marks");
    Ok(())
}
