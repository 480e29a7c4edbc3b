//! A queue of results behind one descriptor: any thread posts, the event loop drains.
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub struct Completions<T> {
    queue: Mutex<VecDeque<(u64, T)>>,
    event: File,
}

impl<T> Completions<T> {
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; its result is checked before it is owned.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and belongs to nobody else.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self {
            queue: Mutex::default(),
            event: File::from(owned),
        })
    }

    /// Readable while results wait; for epoll, never to be read by others.
    pub fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    pub fn len(&self) -> usize {
        self.locked().len()
    }

    pub fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    /// Appends a result. Only the first of several wakes the loop, so a burst costs one system call.
    pub fn post(&self, token: u64, value: T) {
        let mut queue = self.locked();
        let wake = queue.is_empty();
        queue.push_back((token, value));
        drop(queue);
        if wake {
            // It fails only at 2^64 - 1 unread events, and then the descriptor is readable anyway.
            let _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }

    /// Takes everything, in the order posted. A wake-up may find nothing.
    pub fn drain(&self) -> VecDeque<(u64, T)> {
        // First the event, then the queue: a post between the two is taken, or wakes again.
        let _ = (&self.event).read(&mut [0; 8]);
        std::mem::take(&mut *self.locked())
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<(u64, T)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    fn readable(completions: &Completions<u32>) -> bool {
        let mut poll = libc::pollfd {
            fd: completions.descriptor(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd, and no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn results_come_in_order_and_the_descriptor_follows() {
        let completions = Completions::new().unwrap();
        assert!(!readable(&completions));
        completions.post(7, 1);
        completions.post(8, 2);
        assert!(readable(&completions));
        assert_eq!(completions.drain(), [(7, 1), (8, 2)]);
        assert!(!readable(&completions));
        completions.post(9, 3);
        assert!(readable(&completions));
    }

    #[test]
    fn no_result_of_many_threads_is_lost() {
        let completions = Arc::new(Completions::new().unwrap());
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let completions = Arc::clone(&completions);
                thread::spawn(move || (0..1000).for_each(|i| completions.post(thread, i)))
            })
            .collect();
        let mut seen = 0;
        while seen < 4000 {
            if readable(&completions) {
                seen += completions.drain().len();
            }
        }
        threads.into_iter().for_each(|item| item.join().unwrap());
        assert!(completions.is_empty());
    }
}
