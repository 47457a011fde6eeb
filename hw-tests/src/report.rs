//! Verdicts for people (one line each, as they fall) and for machines (JUnit).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It did all that it claims.
    Passed,
    /// It did not; here is why.
    Failed(String),
    /// It could not be run; here is why.
    Skipped(String),
}

/// One line of the report.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The case.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// Wall time.
    pub(crate) took: Duration,
}

/// All cases of a run, in order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// One per case.
    pub(crate) entries: Vec<Entry>,
}

impl Report {
    /// Adds a case and prints its line.
    pub(crate) fn add(&mut self, name: &str, verdict: Verdict, took: Duration) {
        let seconds = took.as_secs_f64();
        match &verdict {
            Verdict::Passed => println!("PASS {seconds:7.2}s  {name}"),
            Verdict::Failed(why) => println!("FAIL {seconds:7.2}s  {name}\n{}", indented(why)),
            Verdict::Skipped(why) => println!("SKIP           {name}: {why}"),
        }
        self.entries.push(Entry { name: name.to_owned(), verdict, took });
    }

    /// How many passed, failed and were skipped.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Verdict) -> bool| {
            self.entries.iter().filter(|entry| wanted(&entry.verdict)).count()
        };
        (
            count(|verdict| matches!(verdict, Verdict::Passed)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
            count(|verdict| matches!(verdict, Verdict::Skipped(_))),
        )
    }

    /// Writes the JUnit file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_junit(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, self.junit()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn junit(&self) -> String {
        let (_, failed, skipped) = self.counts();
        let tests = self.entries.len();
        let time: f64 = self.entries.iter().map(|entry| entry.took.as_secs_f64()).sum();
        let counts = format!(
            "tests=\"{tests}\" failures=\"{failed}\" skipped=\"{skipped}\" time=\"{time:.3}\""
        );
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n\
             <testsuite name=\"hw-lab\" {counts}>\n"
        );
        for entry in &self.entries {
            let time = entry.took.as_secs_f64();
            let name = escaped(&entry.name);
            let _ =
                write!(xml, "<testcase classname=\"hw-lab\" name=\"{name}\" time=\"{time:.3}\">");
            let _ = match &entry.verdict {
                Verdict::Passed => Ok(()),
                Verdict::Failed(why) => write!(xml, "<failure>{}</failure>", escaped(why)),
                Verdict::Skipped(why) => write!(xml, "<skipped message=\"{}\"/>", escaped(why)),
            };
            xml.push_str("</testcase>\n");
        }
        xml.push_str("</testsuite>\n</testsuites>\n");
        xml
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// XML text: the five entities, and no control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_counts_and_escapes() {
        let mut report = Report::default();
        let second = Duration::from_secs(1);
        report.add("good", Verdict::Passed, second);
        report.add("bad", Verdict::Failed("a < b & \"c\"\u{1}".to_owned()), second);
        report.add("absent", Verdict::Skipped("no QEMU".to_owned()), second);
        assert_eq!(report.counts(), (1, 1, 1));
        let xml = report.junit();
        assert!(xml.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"3.000\""), "{xml}");
        assert!(xml.contains("<failure>a &lt; b &amp; &quot;c&quot;?</failure>"), "{xml}");
        assert!(xml.contains("<skipped message=\"no QEMU\"/>"), "{xml}");
    }
}
