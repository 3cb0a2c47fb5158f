//! People who upload files all the time, some of them no further than to a random byte.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rig::{Answer, Person};
use sqlx::PgPool;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{checker::Verdict, history::digest};

/// The largest file, in bytes.
const LARGEST: usize = 64 * 1024;
/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of so many uploads, one is cut off.
const CUT: u32 = 3;
/// The time in which the servers remove what is left of uploads that they did not finish.
const TIDYING: Duration = Duration::from_secs(90);

/// The uploaders, at work.
#[derive(Debug)]
pub struct Uploads {
    done: Arc<Mutex<Done>>,
    stop: CancellationToken,
    workers: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Done {
    /// Those that were acknowledged.
    stored: Vec<Stored>,
    refused_for_room: usize,
    cut: usize,
    /// Whatever a server called a fault of its own.
    faults: Vec<String>,
}

#[derive(Debug, Clone)]
struct Stored {
    person: Person,
    url: String,
    digest: u64,
}

impl Uploads {
    /// Lets so many of these people upload at a time, each a few files a second.
    #[must_use]
    pub fn begin(people: &[Person], workers: u64, seed: u64) -> Self {
        let done = Arc::default();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            let rng = StdRng::seed_from_u64(seed ^ worker);
            tasks.spawn(work(Arc::clone(&done), people.to_vec(), rng, stop.clone()));
        }
        Self { done, stop, workers: tasks }
    }

    /// Waits until one more upload is acknowledged and returns the time that it took.
    pub async fn next_stored(&self, patience: Duration) -> Duration {
        let count = || self.done.lock().unwrap_or_else(PoisonError::into_inner).stored.len();
        let (began, before) = (Instant::now(), count());
        while count() == before && began.elapsed() < patience {
            sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    /// Ends the uploads, and compares what was acknowledged with the store and the database: lost is what
    /// was acknowledged and cannot be read, doubled what is there without a name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end(mut self, db: &PgPool, store: &Path) -> Result<(Verdict, String)> {
        self.stop.cancel();
        while self.workers.join_next().await.is_some() {}
        let done = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        let mut verdict = Verdict { acknowledged: done.stored.len(), ..Verdict::default() };
        verdict.lost.extend(done.faults);
        for Stored { person, url, digest: expected } in &done.stored {
            let bytes = person.download(url).await;
            if bytes.as_deref().map(digest) != Some(*expected) {
                verdict.lost.push(format!("{url} was acknowledged and cannot be read"));
            }
        }
        let deadline = Instant::now() + TIDYING;
        let mut leftovers = leftovers(db, store).await?;
        while !leftovers.is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(500)).await;
            leftovers = self::leftovers(db, store).await?;
        }
        verdict.doubled.extend(leftovers);
        let (refused, cut) = (done.refused_for_room, done.cut);
        let note = format!(
            "{} uploads, {refused} refused for lack of room, {cut} cut off",
            done.stored.len()
        );
        Ok((verdict, note))
    }
}

async fn work(
    done: Arc<Mutex<Done>>,
    people: Vec<Person>,
    mut rng: StdRng,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        sleep(Duration::from_millis(rng.random_range(50..250))).await;
        let Some(person) = people.choose(&mut rng) else { return };
        let person = person.at(rng.random_range(0..1_000));
        let mut bytes = vec![0; rng.random_range(1..LARGEST)];
        rng.fill_bytes(&mut bytes);
        let note = |change: &dyn Fn(&mut Done)| {
            change(&mut done.lock().unwrap_or_else(PoisonError::into_inner));
        };
        if rng.random_ratio(1, CUT) {
            let until = rng.random_range(0..bytes.len());
            let _ = timeout(PATIENCE, cut_off(&person, &bytes, until)).await;
            note(&|done| done.cut += 1);
            continue;
        }
        let digest = digest(&bytes);
        match timeout(PATIENCE, person.upload("noise", bytes)).await {
            Ok(Answer::Ok { body, .. }) => {
                let url = body[0].as_str().unwrap_or_default().to_owned();
                let stored = Stored { person, url, digest };
                note(&|done| done.stored.push(stored.clone()));
            }
            Ok(Answer::Unknown(answer)) if answer.contains("quota_exceeded") => {
                note(&|done| done.refused_for_room += 1);
            }
            Ok(Answer::ServerBug(answer)) => note(&|done| done.faults.push(answer.clone())),
            Ok(Answer::Unknown(_) | Answer::Refused { .. }) | Err(_) => {}
        }
    }
}

/// Sends a part of an upload, and closes the connection.
async fn cut_off(person: &Person, bytes: &[u8], until: usize) -> Result<()> {
    let mut connection = TcpStream::connect(person.address()).await?;
    let head = format!(
        "POST /api/upload HTTP/1.1\r\nHost: chaos.test\r\nAuthorization: Bearer {}\r\n\
         X-File-Name: cut\r\nContent-Length: {}\r\n\r\n",
        person.token,
        bytes.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(&bytes[..until]).await?;
    connection.flush().await?;
    Ok(())
}

/// Returns the files that no row names, the rows without a file, and what unfinished uploads have left.
async fn leftovers(db: &PgPool, store: &Path) -> Result<Vec<String>> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("select workspace_id, encode(hash, 'hex') from files").fetch_all(db).await?;
    let named: BTreeSet<PathBuf> = rows
        .iter()
        .map(|(workspace_id, hex)| {
            store.join(format!("{workspace_id}/{}/{}/{}", &hex[..3], &hex[3..6], &hex[6..]))
        })
        .collect();
    let there: BTreeSet<PathBuf> = files_in(store)?
        .into_iter()
        .filter(|path| path.extension().is_none_or(|extension| extension != "lock"))
        .collect();
    let without_row = there.difference(&named).map(|path| format!("{} has no row", path.display()));
    let without_file = named.difference(&there).map(|path| format!("{} is lost", path.display()));
    Ok(without_row.chain(without_file).collect())
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder of a process may go while it is looked at.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    Ok(files)
}
