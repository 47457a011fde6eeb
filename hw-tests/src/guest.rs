//! The line protocol between the lab and the agent in the guest (`guest/agent.sh`).
//!
//! Orders go down a virtio-serial port, answers come up; a thread reads them into a channel. A job
//! is a script in the guest; several may run at once, and the host may do things meanwhile.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A script that was started in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Job(u32);

/// How a script ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Its exit status; 137 when it was killed for taking too long.
    pub(crate) status: i32,
    /// All that it printed.
    pub(crate) log: String,
    /// From the order to the answer.
    pub(crate) took: Duration,
}

/// One line from the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Ready(String),
    Note(Job, String),
    End(Job, i32),
}

impl Answer {
    fn parse(line: &str) -> Option<Self> {
        let (verb, rest) = line.split_once(' ')?;
        if verb == "ready" {
            return Some(Self::Ready(rest.to_owned()));
        }
        let (id, rest) = rest.split_once(' ')?;
        let job = Job(id.parse().ok()?);
        match verb {
            "note" => Some(Self::Note(job, rest.to_owned())),
            "end" => Some(Self::End(job, rest.trim().parse().ok()?)),
            _ => None,
        }
    }
}

/// What is known of a job.
#[derive(Debug)]
struct State {
    started: Instant,
    ended: Option<(i32, Instant)>,
    notes: Vec<String>,
}

/// The lab's end of the port.
pub(crate) struct Guest {
    orders: Box<dyn Write>,
    answers: Receiver<Answer>,
    share: PathBuf,
    jobs: HashMap<Job, State>,
    next: u32,
    ready: Option<String>,
}

/// How long a killed job may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(20);

impl Guest {
    /// `share` is the host's side of the directory that the guest sees as `/lab`.
    pub(crate) fn new(
        orders: Box<dyn Write>,
        answers: impl Read + Send + 'static,
        share: &Path,
    ) -> Result<Self> {
        let (sender, receiver) = channel();
        thread::Builder::new()
            .name("guest answers".to_owned())
            .spawn(move || read_answers(answers, &sender))?;
        fs::create_dir_all(share.join("log"))?;
        Ok(Self {
            orders,
            answers: receiver,
            share: share.to_owned(),
            jobs: HashMap::new(),
            next: 1,
            ready: None,
        })
    }

    /// Waits for the guest to boot; returns what it believes its uptime to be, and by which clock.
    pub(crate) fn wait_ready(&mut self, timeout: Duration) -> Result<(Duration, String)> {
        let answer = self
            .pump_until(Instant::now() + timeout, |guest| guest.ready.take())
            .context("the guest did not boot")?;
        let (uptime, clock) = answer.split_once(' ').context("an incomplete answer")?;
        Ok((Duration::from_secs_f64(uptime.parse()?), clock.to_owned()))
    }

    /// Starts `cases/SCRIPT` with these variables.
    pub(crate) fn start(&mut self, script: &str, variables: &[(String, String)]) -> Result<Job> {
        let job = Job(self.next);
        self.next += 1;
        let mut order = format!("run {} {script}", job.0);
        for (name, value) in variables {
            if value.is_empty() || value.contains(char::is_whitespace) {
                bail!("{name}={value:?} cannot be sent to the guest");
            }
            order.push_str(&format!(" {name}={value}"));
        }
        let state = State { started: Instant::now(), ended: None, notes: Vec::new() };
        self.jobs.insert(job, state);
        self.order(&order)?;
        Ok(job)
    }

    /// Waits until a job says something that starts with `word`; returns the rest of the line.
    pub(crate) fn wait_note(&mut self, job: Job, word: &str, timeout: Duration) -> Result<String> {
        let found = self.pump_until(Instant::now() + timeout, |guest| {
            let state = guest.jobs.get_mut(&job)?;
            let starts = |note: &String| note.split(' ').next() == Some(word);
            let position = state.notes.iter().position(starts);
            match position {
                Some(at) => Some(Some(state.notes.remove(at))),
                None if state.ended.is_some() => Some(None),
                None => None,
            }
        });
        let note = found.with_context(|| format!("no note {word:?} from the guest"))?;
        let note = note.with_context(|| {
            format!("the script ended without the note {word:?}:\n{}", self.log(job))
        })?;
        Ok(note[word.len()..].trim().to_owned())
    }

    /// Waits for the end of a job; kills it when it takes too long.
    pub(crate) fn wait(&mut self, job: Job, timeout: Duration) -> Result<Outcome> {
        let ended = |guest: &mut Self| guest.jobs.get(&job)?.ended;
        if self.pump_until(Instant::now() + timeout, ended).is_err() {
            self.order(&format!("kill {}", job.0))?;
            self.pump_until(Instant::now() + KILL_GRACE, ended)
                .context("a script could not be killed: the guest hangs")?;
        }
        let state = self.jobs.remove(&job).context("no such job")?;
        let (status, end) = state.ended.context("the job has not ended")?;
        Ok(Outcome { status, log: self.log(job), took: end - state.started })
    }

    /// Fails when a job that should still be running is over.
    pub(crate) fn assert_running(&mut self, job: Job) -> Result<()> {
        self.pump(Duration::ZERO)?;
        match self.jobs.get(&job).and_then(|state| state.ended) {
            Some((status, _)) => bail!("the script ended early ({status}):\n{}", self.log(job)),
            None => Ok(()),
        }
    }

    /// Everything that a job has noted and nobody has taken.
    pub(crate) fn take_notes(&mut self, job: Job) -> Vec<String> {
        while let Ok(answer) = self.answers.try_recv() {
            self.on_answer(answer);
        }
        self.jobs.get_mut(&job).map(|state| std::mem::take(&mut state.notes)).unwrap_or_default()
    }

    /// What a job has printed so far.
    pub(crate) fn log(&self, job: Job) -> String {
        let path = self.share.join("log").join(job.0.to_string());
        fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The kernel's messages since the mark before (or since boot).
    pub(crate) fn kernel_messages(&mut self, mark: &str) -> Result<Vec<String>> {
        self.order(&format!("mark {mark}"))?;
        let line = format!("lab: mark {mark}");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let messages = fs::read(self.share.join("kmsg")).unwrap_or_default();
            let messages: Vec<String> =
                String::from_utf8_lossy(&messages).lines().filter_map(message_text).collect();
            if let Some(end) = messages.iter().rposition(|message| *message == line) {
                let before = &messages[..end];
                let start = before.iter().rposition(|message| message.starts_with("lab: mark "));
                return Ok(before[start.map_or(0, |at| at + 1)..].to_vec());
            }
            if Instant::now() > deadline {
                bail!("the guest does not write its kernel log any more");
            }
            self.pump(Duration::from_millis(20))?;
        }
    }

    /// Asks the guest to power off.
    pub(crate) fn power_off(&mut self) -> Result<()> {
        self.order("off")
    }

    fn order(&mut self, line: &str) -> Result<()> {
        writeln!(self.orders, "{line}").context("the guest is gone")?;
        self.orders.flush().context("the guest is gone")
    }

    fn pump_until<T>(
        &mut self,
        deadline: Instant,
        mut found: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T> {
        loop {
            if let Some(value) = found(self) {
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("timed out");
            }
            self.pump(left)?;
        }
    }

    fn pump(&mut self, timeout: Duration) -> Result<()> {
        let answer = match self.answers.recv_timeout(timeout) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("the guest is gone"),
        };
        self.on_answer(answer);
        Ok(())
    }

    /// Takes all that the guest said before it was gone.
    pub(crate) fn hear_the_end(&mut self) {
        while let Ok(answer) = self.answers.recv() {
            self.on_answer(answer);
        }
    }

    fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Ready(answer) => self.ready = Some(answer),
            Answer::Note(job, text) => {
                if let Some(state) = self.jobs.get_mut(&job) {
                    state.notes.push(text);
                }
            }
            Answer::End(job, status) => {
                if let Some(state) = self.jobs.get_mut(&job) {
                    state.ended = Some((status, Instant::now()));
                }
            }
        }
    }
}

fn read_answers(answers: impl Read, sender: &Sender<Answer>) {
    for line in BufReader::new(answers).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line);
        let Some(answer) = Answer::parse(&line) else {
            eprintln!("lab: the guest says {line:?}");
            continue;
        };
        if sender.send(answer).is_err() {
            return;
        }
    }
}

/// The text of a `/dev/kmsg` record: "6,339,5140900,-;text". Lines that start with a blank belong
/// to the record before and say which device it is about.
fn message_text(record: &str) -> Option<String> {
    if record.starts_with(' ') {
        return None;
    }
    Some(record.split_once(';').map_or(record, |(_, text)| text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed_and_nonsense_is_not() {
        assert_eq!(Answer::parse("ready 3.14"), Some(Answer::Ready("3.14".to_owned())));
        assert_eq!(Answer::parse("end 7 137"), Some(Answer::End(Job(7), 137)));
        let note = Answer::Note(Job(2), "durable 12 x".to_owned());
        assert_eq!(Answer::parse("note 2 durable 12 x"), Some(note));
        for nonsense in ["", "end", "end 1", "end x 1", "end 1 x", "hello 1 2"] {
            assert_eq!(Answer::parse(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_note_that_never_comes_is_reported_with_the_log() {
        let share = tempfile::tempdir().unwrap();
        let answers = &b"note 1 started\nend 1 3\n"[..];
        let mut guest = Guest::new(Box::new(Vec::new()), answers, share.path()).unwrap();
        let job = guest.start("x.sh", &[]).unwrap();
        fs::write(share.path().join("log/1"), "it broke").unwrap();
        let soon = Duration::from_secs(5);
        assert_eq!(guest.wait_note(job, "started", soon).unwrap(), "");
        let error = guest.wait_note(job, "finished", soon).unwrap_err();
        assert!(format!("{error:#}").contains("it broke"));
        assert_eq!(guest.wait(job, soon).unwrap().status, 3);
    }

    #[test]
    fn a_value_with_blanks_is_refused() {
        let share = tempfile::tempdir().unwrap();
        let mut guest = Guest::new(Box::new(Vec::new()), &b""[..], share.path()).unwrap();
        let variables = [("A".to_owned(), "b c".to_owned())];
        assert!(guest.start("x.sh", &variables).is_err());
    }

    #[test]
    fn kernel_records_lose_their_prefix_and_their_annotations() {
        let text = message_text("6,339,5140900,-;nvme nvme0: text; more");
        assert_eq!(text.as_deref(), Some("nvme nvme0: text; more"));
        assert_eq!(message_text(" SUBSYSTEM=nvme"), None);
    }
}
