//! One receiver's task: it takes what is to be told, delivers it, waits and tries again, and never makes the trace wait.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use knark_specs::alert::Notice;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::queue::{Batch, Queue};

/// How many alerts may wait until the task looks: it always does soon.
pub const INTAKE: usize = 1_024;
/// Between the first attempts that fail; each time it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Between later ones.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A receiver that asks for more is asked again earlier.
const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// A way to tell.
pub trait Sink: Send {
    /// How many alerts it takes at a time.
    fn most(&self) -> usize;
    /// Tells these.
    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>>;
    /// No more comes.
    fn close(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Why something isn't told.
#[derive(Debug)]
pub enum Failure {
    /// It may succeed later.
    Later {
        /// What went wrong.
        why: anyhow::Error,
        /// How long the receiver wants to be left alone.
        after: Option<Duration>,
    },
    /// The receiver will never take this.
    Never(anyhow::Error),
    /// It took all but so many, which it will never take.
    Partly(u64, anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(why: E) -> Self {
        Self::Later { why: why.into(), after: None }
    }
}

/// What became of a receiver's alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Delivered, as far as the receiver tells.
    pub delivered: u64,
    /// What it refused.
    pub refused: u64,
    /// What there was no room for.
    pub lost: u64,
    /// What waits on disk for the next trace.
    pub kept: u64,
    /// Where.
    pub place: Option<std::path::PathBuf>,
    /// What was delivered may not have been read.
    pub unsure: bool,
}

/// A receiver's task.
pub struct Delivery {
    /// Whose, for messages.
    pub name: String,
    /// The way.
    pub sink: Box<dyn Sink>,
    /// What is to be told.
    pub intake: mpsc::Receiver<Arc<Notice>>,
    /// What waits.
    pub queue: Queue,
    /// What the user should know.
    pub warnings: mpsc::Sender<String>,
    /// Once known, when to give up.
    pub deadline: watch::Receiver<Option<Instant>>,
}

impl Delivery {
    /// Delivers until no more comes and nothing waits, or until the deadline.
    pub async fn run(mut self) -> Account {
        let mut account = Account::default();
        let mut batch = Batch::default();
        let mut failures = 0_u32;
        let mut most = self.sink.most();
        let mut told_loss = false;
        if self.queue.spooled() > 0 {
            self.warn(&format!("{} alerts of an earlier trace are delivered first", self.queue.spooled()));
        }
        loop {
            self.hear().await;
            if self.queue.lost > 0 && !std::mem::replace(&mut told_loss, true) {
                let why = self.queue.why.clone().unwrap_or_default();
                self.warn(&format!("alerts are lost: {why}"));
            }
            if batch.notices.is_empty() {
                batch = self.queue.take(most).await;
            }
            if batch.notices.is_empty() {
                if !self.wait().await {
                    break;
                }
                continue;
            }
            let (sink, notices) = (&mut self.sink, &batch.notices);
            let sending = async {
                let notices: Vec<&Notice> = notices.iter().map(|notice| &**notice).collect();
                sink.send(&notices).await
            };
            let Some(sent) = meanwhile(sending, &mut self.intake, &mut self.queue, &mut self.deadline).await else { break };
            match sent {
                Ok(()) => {
                    self.queue.healthy = true;
                    account.delivered += batch.notices.len() as u64;
                    self.queue.done(std::mem::take(&mut batch)).await;
                    if std::mem::take(&mut failures) > 0 {
                        self.warn("takes alerts again");
                    }
                    most = self.sink.most();
                }
                Err(Failure::Later { why, after }) => {
                    if failures == 0 {
                        self.warn(&format!("{why:#}; it is tried again, and alerts wait until then"));
                    }
                    self.queue.healthy = false;
                    let wait = after.unwrap_or_default().min(LONGEST_ASKED).max(backoff(failures));
                    failures = failures.saturating_add(1);
                    let waited = meanwhile(tokio::time::sleep(wait), &mut self.intake, &mut self.queue, &mut self.deadline);
                    if waited.await.is_none() {
                        break;
                    }
                }
                Err(Failure::Partly(refused, why)) => {
                    let all = batch.notices.len() as u64;
                    if account.refused == 0 {
                        self.warn(&format!("{} of {all} alerts were refused and are not sent again: {why:#}", refused.min(all)));
                    }
                    account.refused += refused.min(all);
                    account.delivered += all - refused.min(all);
                    self.queue.done(std::mem::take(&mut batch)).await;
                }
                // One of them is what it can't take.
                Err(Failure::Never(_)) if batch.notices.len() > 1 => {
                    most = 1;
                    batch = self.split(batch).await;
                }
                Err(Failure::Never(why)) => {
                    if account.refused == 0 {
                        self.warn(&format!("an alert was refused and is not sent again: {why:#}"));
                    }
                    account.refused += 1;
                    self.queue.done(std::mem::take(&mut batch)).await;
                }
            }
        }
        self.end(batch, account).await
    }

    async fn end(mut self, batch: Batch, mut account: Account) -> Account {
        let mut heard = Vec::new();
        while let Ok(notice) = self.intake.try_recv() {
            heard.push(notice);
        }
        self.queue.add(heard).await;
        (account.kept, account.place) = self.queue.keep(batch).await;
        account.lost = self.queue.lost;
        let closed = self.sink.close();
        match until(&mut self.deadline, closed).await {
            Some(Ok(())) => {}
            Some(Err(why)) => {
                account.unsure = true;
                self.warn(&format!("{why:#}"));
            }
            None => {
                account.unsure = true;
                self.warn("did not end in time");
            }
        }
        account
    }

    /// What came meanwhile goes to where it waits.
    async fn hear(&mut self) {
        let mut heard = Vec::new();
        while self.queue.has_room()
            && heard.len() < INTAKE
            && let Ok(notice) = self.intake.try_recv()
        {
            heard.push(notice);
        }
        self.queue.add(heard).await;
    }

    /// Waits for something to tell; false: no more comes.
    async fn wait(&mut self) -> bool {
        let Some(notice) = self.intake.recv().await else { return false };
        self.queue.add(vec![notice]).await;
        true
    }

    /// The same ones again, one by one.
    async fn split(&mut self, batch: Batch) -> Batch {
        self.queue.put_back(batch);
        self.queue.take(1).await
    }

    fn warn(&self, text: &str) {
        // Who has that many warnings unread doesn't read them; the account at the end says the rest.
        let _ = self.warnings.try_send(format!("{}: {text}", self.name));
    }
}

/// Does something while alerts come in; `None`: its deadline passed before.
async fn meanwhile<T>(
    doing: impl Future<Output = T>,
    intake: &mut mpsc::Receiver<Arc<Notice>>,
    queue: &mut Queue,
    deadline: &mut watch::Receiver<Option<Instant>>,
) -> Option<T> {
    let mut doing = std::pin::pin!(doing);
    let mut passed = std::pin::pin!(passed(deadline));
    let mut heard = Vec::new();
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut doing => return Some(done),
            () = &mut passed => return None,
            count = intake.recv_many(&mut heard, INTAKE), if open && queue.has_room() => {
                open = count > 0;
                queue.add(std::mem::take(&mut heard)).await;
            }
            () = queue.impatience(), if !queue.has_room() => {}
        }
    }
}

/// What comes of this before the deadline.
async fn until<T>(deadline: &mut watch::Receiver<Option<Instant>>, doing: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = doing => Some(done),
        () = passed(deadline) => None,
    }
}

/// Waits until there is a deadline, and it has passed. Nobody left who could set one is as good.
async fn passed(deadline: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let at = *deadline.borrow_and_update();
        match at {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => return,
                changed = deadline.changed() => if changed.is_err() { return },
            },
            None => {
                if deadline.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// How long to wait after so many failures: twice as long each time, and a random part of it, so that not all come back at once.
fn backoff(failures: u32) -> Duration {
    let whole = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_WAIT);
    let mut random = [0; 1];
    // Without random bytes all wait equally long, which does no harm here.
    let _ = getrandom::fill(&mut random);
    whole / 2 + (whole / 2).mul_f64(f64::from(random[0]) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        for (failures, whole) in
            [(0, FIRST_WAIT), (1, FIRST_WAIT * 2), (3, FIRST_WAIT * 8), (9, LONGEST_WAIT), (u32::MAX, LONGEST_WAIT)]
        {
            for _ in 0..20 {
                let wait = backoff(failures);
                assert!((whole / 2..=whole).contains(&wait), "{failures}: {wait:?}");
            }
        }
    }
}
