//! Threads that run jobs and post what they return. A panic in a job becomes a result.
use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use crate::completions::Completions;

/// Work of any subject.
pub type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// Urgent jobs (a vote's signature) overtake all others, and keep order among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    Urgent,
    Normal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    Full,
    Closed,
}

struct Queue<T> {
    urgent: VecDeque<(u64, Job<T>)>,
    normal: VecDeque<(u64, Job<T>)>,
    closed: bool,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    wake: Condvar,
    completions: Arc<Completions<T>>,
    panicked: fn() -> T,
    jobs_max: usize,
}

pub struct Workers<T> {
    shared: Arc<Shared<T>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<T: Send + 'static> Workers<T> {
    /// Starts the threads. `panicked` makes the result of a job that panicked.
    pub fn start(
        threads: usize,
        jobs_max: usize,
        completions: Arc<Completions<T>>,
        panicked: fn() -> T,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                urgent: VecDeque::new(),
                normal: VecDeque::new(),
                closed: false,
            }),
            wake: Condvar::new(),
            completions,
            panicked,
            jobs_max,
        });
        let workers = Self {
            shared,
            threads: Mutex::default(),
        };
        for number in 0..threads {
            let shared = Arc::clone(&workers.shared);
            // On failure the drop of `workers` ends the threads that did start.
            let thread = thread::Builder::new()
                .name(format!("hm-worker-{number}"))
                .spawn(move || run(&shared))?;
            workers.locked_threads().push(thread);
        }
        Ok(workers)
    }

    pub fn submit(&self, token: u64, urgency: Urgency, job: Job<T>) -> Result<(), SubmitError> {
        let mut queue = self.shared.locked();
        if queue.closed {
            return Err(SubmitError::Closed);
        }
        if queue.urgent.len() + queue.normal.len() >= self.shared.jobs_max {
            return Err(SubmitError::Full);
        }
        match urgency {
            Urgency::Urgent => queue.urgent.push_back((token, job)),
            Urgency::Normal => queue.normal.push_back((token, job)),
        }
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Jobs that no thread has begun.
    pub fn waiting(&self) -> usize {
        let queue = self.shared.locked();
        queue.urgent.len() + queue.normal.len()
    }
}

impl<T> Workers<T> {
    /// Forgets the jobs that wait, lets the running ones end, and joins the threads.
    pub fn close(&self) {
        let mut queue = self.shared.locked();
        queue.closed = true;
        let forgotten = (
            std::mem::take(&mut queue.urgent),
            std::mem::take(&mut queue.normal),
        );
        drop(queue);
        drop(forgotten);
        self.shared.wake.notify_all();
        let threads = std::mem::take(&mut *self.locked_threads());
        for thread in threads {
            // A worker catches the panics of its jobs and has none of its own.
            let _ = thread.join();
        }
    }

    fn locked_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Shared<T> {
    fn locked(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(u64, Job<T>)> {
        let mut queue = self.locked();
        loop {
            if queue.closed {
                return None;
            }
            let urgent = queue.urgent.pop_front();
            if let Some(item) = urgent.or_else(|| queue.normal.pop_front()) {
                return Some(item);
            }
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run<T>(shared: &Shared<T>) {
    while let Some((token, job)) = shared.next() {
        // A job owns what it touches, so a broken one leaves nothing half done behind.
        let value = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| (shared.panicked)());
        shared.completions.post(token, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn start(threads: usize, jobs_max: usize) -> (Workers<i32>, Arc<Completions<i32>>) {
        let completions = Arc::new(Completions::new().unwrap());
        let workers = Workers::start(threads, jobs_max, completions.clone(), || -1).unwrap();
        (workers, completions)
    }

    fn wait_for(completions: &Completions<i32>, count: usize) -> Vec<(u64, i32)> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(completions.drain());
            thread::yield_now();
        }
        all
    }

    #[test]
    fn every_job_posts_one_result() {
        let (workers, completions) = start(3, 1000);
        for token in 0..500 {
            let job = Box::new(move || token as i32 * 2);
            workers.submit(token, Urgency::Normal, job).unwrap();
        }
        let mut all = wait_for(&completions, 500);
        all.sort_unstable();
        assert!(all.iter().all(|(token, value)| *value == *token as i32 * 2));
    }

    #[test]
    fn urgent_jobs_overtake_and_a_full_queue_refuses() {
        let (workers, completions) = start(1, 2);
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let blocker = Box::new(move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
            0
        });
        workers.submit(0, Urgency::Normal, blocker).unwrap();
        has_begun.recv().unwrap();
        workers.submit(1, Urgency::Normal, Box::new(|| 1)).unwrap();
        workers.submit(2, Urgency::Urgent, Box::new(|| 2)).unwrap();
        let refused = workers.submit(3, Urgency::Urgent, Box::new(|| 3));
        assert_eq!((refused, workers.waiting()), (Err(SubmitError::Full), 2));
        release.send(()).unwrap();
        assert_eq!(wait_for(&completions, 3), [(0, 0), (2, 2), (1, 1)]);
    }

    #[test]
    fn a_panic_is_a_result_and_the_thread_lives_on() {
        let (workers, completions) = start(1, 10);
        let job = Box::new(|| std::panic::resume_unwind(Box::new("planted")));
        workers.submit(1, Urgency::Normal, job).unwrap();
        workers.submit(2, Urgency::Normal, Box::new(|| 5)).unwrap();
        assert_eq!(wait_for(&completions, 2), [(1, -1), (2, 5)]);
    }

    #[test]
    fn nothing_is_taken_after_close() {
        let (workers, completions) = start(2, 10);
        workers.close();
        let refused = workers.submit(1, Urgency::Normal, Box::new(|| 1));
        assert_eq!(refused, Err(SubmitError::Closed));
        assert!(completions.is_empty());
    }
}
