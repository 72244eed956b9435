//! `doctor` for people: a block a finding, the worst first, and what mends it on a line of its own that can be copied.

use std::io::{self, Write};

use super::{Screen, plural, severity_paint};
use crate::admin::proto::Finding;
use crate::admin::table::Paint;

/// Text is broken before this column; a command never is.
const WIDTH: usize = 100;
const INDENT: &str = "    ";

/// All findings, and what they come to.
pub(in crate::admin) fn findings<W: Write>(
    screen: &mut Screen<W>,
    findings: &[Finding],
) -> io::Result<()> {
    for finding in findings {
        let Finding {
            id,
            severity,
            finding,
            fix,
        } = finding;
        screen.paint(severity_paint(severity), &format!("{severity:<5}"))?;
        write!(screen.out, "  ")?;
        screen.paint(Some(Paint::Heading), id)?;
        writeln!(screen.out)?;
        for line in broken(finding) {
            writeln!(screen.out, "{INDENT}{line}")?;
        }
        if let Some(fix) = fix {
            writeln!(screen.out, "{INDENT}mend it with:\n{INDENT}{INDENT}{fix}")?;
        }
        writeln!(screen.out)?;
    }
    let of = |severity| {
        findings
            .iter()
            .filter(move |f| f.severity == severity)
            .count() as u64
    };
    let (errors, warnings) = (of("error"), of("warn"));
    if errors + warnings == 0 {
        writeln!(screen.out, "nothing was found that needs mending")
    } else {
        writeln!(
            screen.out,
            "{}, {}",
            plural(errors, "error"),
            plural(warnings, "warning")
        )
    }
}

/// A text in lines, broken between words.
fn broken(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else {
            continue;
        };
        if !line.is_empty() && INDENT.len() + line.chars().count() + word.chars().count() >= WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(all: &[Finding]) -> String {
        let mut screen = Screen {
            out: Vec::new(),
            colour: false,
        };
        findings(&mut screen, all).unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn a_fix_stands_alone_on_its_line_and_is_not_broken() {
        let fix = format!("sysctl -w {}=1", "x".repeat(200));
        let finding = Finding {
            id: "not-forwarding".into(),
            severity: "warn".into(),
            finding: "word ".repeat(30).trim_end().to_owned(),
            fix: Some(fix.clone()),
        };
        let shown = text(&[finding]);
        assert!(shown.lines().any(|line| line.trim() == fix), "{shown}");
        let rest = shown.lines().filter(|line| line.trim() != fix);
        assert!(rest.clone().all(|line| line.len() < WIDTH), "{shown}");
        assert_eq!(rest.clone().next_back(), Some("0 errors, 1 warning"));
        assert_eq!(text(&[]), "nothing was found that needs mending\n");
    }

    #[test]
    fn findings_are_blocks_and_counted_at_the_end() {
        assert_eq!(
            text(&crate::admin::samples::findings()),
            r"error  zebra-not-connected
    no zebra is connected to 127.0.0.1:2620: routes are not followed
    mend it with:
        vtysh -c 'configure' -c 'fpm address 127.0.0.1 port 2620'

warn   driver-unfit
    p0: the switch's driver can't do what routes need; `show ports` says what

1 error, 1 warning
"
        );
    }
}
