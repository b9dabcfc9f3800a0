//! What waits for a receiver: first in memory, and once that is full, on disk.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use knark_specs::alert::Notice;
use tokio::sync::watch;

use super::spool::{Chunk, Spool};

/// So many alerts wait in memory,
const MOST: usize = 1_000;
/// and so many bytes, or a single alert.
const BYTES: usize = 8 << 20;

/// The alerts that wait, the oldest first.
#[derive(Debug)]
pub struct Queue {
    ready: VecDeque<Arc<Notice>>,
    bytes: usize,
    spool: Option<Spool>,
    /// Rather than lose what there is no room for, it is to be brought later.
    patient: watch::Receiver<bool>,
    /// The last attempt to deliver succeeded, or there was none.
    pub healthy: bool,
    /// Alerts for which there was no room.
    pub lost: u64,
    /// Why there was none, the first time.
    pub why: Option<String>,
}

/// Those that are being delivered.
#[derive(Debug, Default)]
pub struct Batch {
    /// The alerts.
    pub notices: Vec<Arc<Notice>>,
    /// Where they are on disk, as long as they aren't delivered.
    chunk: Option<Chunk>,
}

impl Queue {
    /// An empty one, or with what an earlier process left in the spool.
    pub fn new(spool: Option<Spool>, patient: watch::Receiver<bool>) -> Self {
        Self { ready: VecDeque::new(), bytes: 0, spool, patient, healthy: true, lost: 0, why: None }
    }

    /// Whether more may be brought. What happens now can't be put off, so there is room for it, or it is lost.
    pub fn has_room(&self) -> bool {
        !self.is_patient() || self.ready.len() < MOST && self.bytes < BYTES
    }

    /// Waits until what there is no room for is to be lost.
    pub async fn impatience(&mut self) {
        // Who could still say so has gone, which says it too.
        let _ = self.patient.wait_for(|patient| !patient).await;
    }

    fn is_patient(&self) -> bool {
        (self.healthy || self.spool.is_none()) && *self.patient.borrow() && self.patient.has_changed().is_ok()
    }

    /// Alerts that wait on disk.
    pub fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::lines)
    }

    /// Adds some, the oldest first. What there is no room for is counted.
    pub async fn add(&mut self, notices: Vec<Arc<Notice>>) {
        let mut rest = notices.into_iter();
        let mut spilled = Vec::new();
        for notice in rest.by_ref() {
            let bytes = notice.event.bytes();
            let fits = self.ready.is_empty() || self.ready.len() < MOST && self.bytes + bytes <= BYTES;
            // Who was asked whether there is room may bring a little more than that.
            let has_room = fits || self.is_patient();
            if has_room && self.spooled() == 0 {
                self.bytes += bytes;
                self.ready.push_back(notice);
            } else {
                spilled.push(notice);
                break;
            }
        }
        spilled.extend(rest);
        self.spill(spilled).await;
    }

    /// The oldest ones, so many at most.
    pub async fn take(&mut self, most: usize) -> Batch {
        if self.ready.is_empty() && self.spooled() > 0 {
            match self.on_disk(move |spool| spool.read(most)).await {
                Ok(chunk) => {
                    if chunk.damaged > 0 {
                        self.lose(chunk.damaged, || "the spool is damaged".to_owned());
                    }
                    let chunk = self.skip_damage(chunk).await;
                    let notices = chunk.iter().flat_map(|chunk| chunk.notices.iter().cloned().map(Arc::new)).collect();
                    return Batch { notices, chunk };
                }
                Err(error) => {
                    let lines = self.spooled();
                    self.lose(lines, || format!("reading the spool: {error}"));
                    self.spool = None;
                }
            }
        }
        let notices: Vec<_> = self.ready.drain(..most.min(self.ready.len())).collect();
        self.bytes -= notices.iter().map(|notice| notice.event.bytes()).sum::<usize>();
        Batch { notices, chunk: None }
    }

    /// These wait again, before all others.
    pub fn put_back(&mut self, batch: Batch) {
        if batch.chunk.is_none() {
            self.bytes += batch.notices.iter().map(|notice| notice.event.bytes()).sum::<usize>();
            batch.notices.into_iter().rev().for_each(|notice| self.ready.push_front(notice));
        }
    }

    /// These need not be kept any longer.
    pub async fn done(&mut self, batch: Batch) {
        if let Some(chunk) = batch.chunk
            && let Err(error) = self.on_disk(move |spool| spool.delivered(&chunk)).await
        {
            self.why.get_or_insert_with(|| format!("writing the spool: {error}"));
        }
    }

    /// No more is delivered: what waits goes to the spool. How many wait there then, and where.
    pub async fn keep(&mut self, batch: Batch) -> (u64, Option<PathBuf>) {
        let mut left = if batch.chunk.is_none() { batch.notices } else { Vec::new() };
        left.extend(self.ready.drain(..));
        self.spill(left).await;
        let finished = self.on_disk(|spool| {
            spool.finish()?;
            Ok((spool.lines(), spool.path().map(ToOwned::to_owned)))
        });
        match finished.await {
            Ok(kept) => kept,
            Err(error) => {
                self.why.get_or_insert_with(|| format!("writing the spool: {error}"));
                (self.spooled(), None)
            }
        }
    }

    /// Lines that are nothing are done with at once, where nothing else was read with them.
    async fn skip_damage(&mut self, chunk: Chunk) -> Option<Chunk> {
        if !chunk.notices.is_empty() {
            return Some(chunk);
        }
        self.done(Batch { notices: Vec::new(), chunk: Some(chunk) }).await;
        None
    }

    async fn spill(&mut self, notices: Vec<Arc<Notice>>) {
        if notices.is_empty() {
            return;
        }
        let count = notices.len() as u64;
        if self.spool.is_none() {
            self.lose(count, || format!("more than {MOST} waited, or {} MiB, and none are kept on disk", BYTES >> 20));
            return;
        }
        let spilled = self.on_disk(move |spool| {
            let mut lost = 0;
            let mut why = None;
            for notice in notices {
                if let Err(error) = spool.add(&notice) {
                    lost += 1;
                    why.get_or_insert(error);
                }
            }
            Ok((lost, why))
        });
        match spilled.await {
            Ok((0, _)) => {}
            Ok((lost, why)) => self.lose(lost, || why.map_or_else(String::new, |why| format!("writing the spool: {why}"))),
            Err(error) => self.lose(count, || format!("writing the spool: {error}")),
        }
    }

    fn lose(&mut self, count: u64, why: impl FnOnce() -> String) {
        self.lost = self.lost.saturating_add(count);
        self.why.get_or_insert_with(why);
    }

    /// A disk may be slow; others go on meanwhile.
    async fn on_disk<T: Default + Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(mut spool) = self.spool.take() else { return Ok(T::default()) };
        let (spool, done) = tokio::task::spawn_blocking(move || {
            let done = work(&mut spool);
            (spool, done)
        })
        .await
        .map_err(io::Error::other)?;
        self.spool = Some(spool);
        done
    }
}
