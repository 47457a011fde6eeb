//! A case: a claim, the code that proves it, and the kernel messages it may cause.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

use crate::dmesg;
use crate::lab::{Backend, Lab};
use crate::report::Verdict;

/// One named claim.
pub(crate) struct Case {
    /// What is claimed, as `topic/claim_in_words`.
    pub(crate) name: &'static str,
    /// The proof.
    pub(crate) run: fn(&mut Lab) -> Result<()>,
    /// Kernel messages that would be complaints elsewhere but belong to this case.
    pub(crate) allowed: &'static [&'static str],
    /// Whether it acts on the daemon itself, so that the stand-in cannot serve.
    pub(crate) needs_daemon: bool,
}

impl Case {
    pub(crate) const fn new(name: &'static str, run: fn(&mut Lab) -> Result<()>) -> Self {
        Self { name, run, allowed: &[], needs_daemon: false }
    }

    pub(crate) const fn on_daemon(self) -> Self {
        Self { needs_daemon: true, ..self }
    }

    pub(crate) const fn allowing(self, allowed: &'static [&'static str]) -> Self {
        Self { allowed, ..self }
    }

    /// Runs it and judges the guest's kernel log as well.
    pub(crate) fn judge(&self, lab: &mut Lab) -> (Verdict, Duration) {
        let start = Instant::now();
        if self.needs_daemon && matches!(lab.backend, Backend::StandIn) {
            return (Verdict::Skipped("needs holdfastd".to_owned()), Duration::ZERO);
        }
        let result = (self.run)(lab).and_then(|()| lab.assert_nodes_alive());
        let messages = lab.kernel_messages(self.name);
        let verdict = match (result, messages) {
            (Ok(()), Ok(messages)) => self.judge_messages(&messages, lab),
            (Ok(()), Err(error)) => failed(&error, lab.abandon_vm(), lab),
            (Err(error), messages) => {
                let messages = messages.unwrap_or_else(|_| vec![lab.abandon_vm()]);
                let skipped = messages.len().saturating_sub(30);
                let verdict = failed(&error, messages[skipped..].join("\n"), lab);
                lab.clean_up(self.name);
                verdict
            }
        };
        (verdict, start.elapsed())
    }

    fn judge_messages(&self, messages: &[String], lab: &Lab) -> Verdict {
        let mut allowed = self.allowed.to_vec();
        if matches!(lab.backend, Backend::StandIn) {
            allowed.extend(dmesg::STAND_IN);
        }
        let complaints = dmesg::complaints(messages, &allowed);
        if complaints.is_empty() {
            return Verdict::Passed;
        }
        let error = Error::msg("the guest's kernel complains");
        failed(&error, complaints.join("\n"), lab)
    }
}

fn failed(error: &Error, messages: String, lab: &Lab) -> Verdict {
    Verdict::Failed(format!("{error:#}\nkernel messages:\n{messages}\n{}", lab.node_logs()))
}

/// The cases whose names contain one of the words; all of them when there are no words.
pub(crate) fn selected(cases: Vec<Case>, words: &[String]) -> Result<Vec<Case>> {
    let chosen =
        |case: &Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let cases: Vec<Case> = cases.into_iter().filter(chosen).collect();
    if cases.is_empty() {
        bail!("no case is called {words:?}");
    }
    Ok(cases)
}
