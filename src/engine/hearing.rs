//! What zebra makes of answers, which its version decides and the wire does not show; said once a process, in plain words.
//!
//! Executed with 8.4.4, 10.3 and 10.7.1 (docs/evidence.md, "The return path"). Where zebra can't be seen, nothing is said.

use super::Engine;
use super::report::Severity;
use crate::config::{FeedbackMode, OffloadMode};
use crate::model::{FpmModule, FrrVersion, ZebraProcess};

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It is taken in.
    Heeded,
    /// It is read and thrown away.
    Ignored,
    /// It is taken for one about another table, and dropped; zebra's log has no word of it unless that is debugged.
    Dropped,
    /// Nobody has tried.
    Untried,
}

impl Hearing {
    /// The word in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Heeded => "heeded",
            Self::Ignored => "ignored",
            Self::Dropped => "dropped",
            Self::Untried => "untried",
        }
    }

    pub(super) const fn of(zebra: &ZebraProcess) -> Self {
        let FrrVersion { major, minor, .. } = zebra.version;
        match (zebra.module, major, minor) {
            (FpmModule::ZebraFpm, ..) | (_, 0..=7, _) | (_, 8, 0..=4) => Self::Ignored,
            (_, 10, 3) => Self::Dropped,
            (_, 10, 7..) | (_, 11.., _) => Self::Heeded,
            (_, 8..=10, _) => Self::Untried,
        }
    }
}

impl Engine {
    /// Who dialled is known now.
    pub(super) fn recognise(&mut self, zebra: ZebraProcess) {
        let again = self.feedback.told_of == Some(zebra);
        self.feedback.zebra = Some(zebra);
        if !again {
            self.tell_of_zebra(zebra);
        }
    }

    /// The configuration has changed, and with it perhaps what zebra waits for in vain.
    pub(super) fn reconsider_zebra(&mut self) {
        if let Some(zebra) = self.feedback.zebra {
            self.tell_of_zebra(zebra);
        }
    }

    fn tell_of_zebra(&mut self, zebra: ZebraProcess) {
        self.feedback.told_of = Some(zebra);
        if let Some((severity, text)) = self.hearing_words() {
            self.notables.push(self.now, severity, "zebra-known", text);
        }
    }

    /// What the connected zebra makes of answers, where it can be seen.
    pub(super) fn hearing_words(&self) -> Option<(Severity, String)> {
        let zebra = self.feedback.zebra.as_ref()?;
        let (severity, text) = words(zebra, self.gives_answers());
        let who = format!("zebra is FRR {}, process {}", zebra.version, zebra.pid);
        Some((severity, format!("{who}: {text}")))
    }

    fn gives_answers(&self) -> bool {
        let looks = self.writes_routes() || self.config.offload.mode != OffloadMode::Off;
        self.config.feedback.mode != FeedbackMode::Off && looks
    }
}

const fn words(zebra: &ZebraProcess, answered: bool) -> (Severity, &'static str) {
    use Hearing as H;
    match (zebra.waits, Hearing::of(zebra)) {
        (true, H::Heeded) if answered => {
            (Severity::Info, "it waits for answers, and takes them in")
        }
        (true, H::Heeded) => (
            Severity::Error,
            "it waits for answers (--asic-offload=notify_on_offload), which this configuration does not give: with \
             `bgp suppress-fib-pending` nothing is advertised",
        ),
        (true, H::Ignored | H::Dropped) => (
            Severity::Error,
            "it waits for answers (--asic-offload=notify_on_offload), but can't take them in: with \
             `bgp suppress-fib-pending` nothing is ever advertised; leave that option out, or take FRR 10.7 with dplane_fpm_nl",
        ),
        (true, H::Untried) => (
            Severity::Warn,
            "it waits for answers (--asic-offload=notify_on_offload), and nobody has tried whether this version takes them \
             in: if routes stay queued (q in `show ip route`), leave that option out",
        ),
        (false, H::Heeded) => (
            Severity::Info,
            "it takes answers in, but does not wait for them",
        ),
        (false, H::Ignored | H::Dropped) => (
            Severity::Info,
            "it can't take answers in: `bgp suppress-fib-pending` waits for its own kernel routes",
        ),
        (false, H::Untried) => (Severity::Info, "it does not wait for answers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zebra(version: &str, waits: bool) -> ZebraProcess {
        ZebraProcess {
            pid: 1,
            started: 1,
            version: FrrVersion::parse(version).unwrap(),
            module: FpmModule::DplaneFpmNl,
            waits,
            table: None,
            netns_vrfs: false,
        }
    }

    #[test]
    fn versions_that_were_tried_are_judged_and_others_are_not() {
        for (version, hearing) in [
            ("7.5", Hearing::Ignored),
            ("8.4.4", Hearing::Ignored),
            ("8.5", Hearing::Untried),
            ("9.1", Hearing::Untried),
            ("10.2", Hearing::Untried),
            ("10.3", Hearing::Dropped),
            ("10.6.1", Hearing::Untried),
            ("10.7.1", Hearing::Heeded),
            ("11.0", Hearing::Heeded),
        ] {
            assert_eq!(Hearing::of(&zebra(version, false)), hearing, "{version}");
        }
        let old = ZebraProcess {
            module: FpmModule::ZebraFpm,
            ..zebra("10.7.1", true)
        };
        assert_eq!(Hearing::of(&old), Hearing::Ignored);
    }

    #[test]
    fn only_a_zebra_that_waits_in_vain_is_an_error() {
        for (version, waits, answered, severity) in [
            ("10.7.1", true, true, Severity::Info),
            ("10.7.1", true, false, Severity::Error),
            ("10.7.1", false, false, Severity::Info),
            ("10.3", true, true, Severity::Error),
            ("10.3", false, true, Severity::Info),
            ("8.4.4", true, true, Severity::Error),
            ("8.4.4", false, true, Severity::Info),
            ("9.1", true, true, Severity::Warn),
        ] {
            let said = words(&zebra(version, waits), answered);
            assert_eq!(said.0, severity, "{version} {}", said.1);
        }
    }
}
