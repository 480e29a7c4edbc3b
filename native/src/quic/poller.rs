//! The wait set of an engine: one epoll descriptor over its socket, a kick, a timer, and whatever
//! else the owner wants to be woken by. The only unsafe code of the engine is here.
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

const EPOLL_EVENTS: usize = 64;

/// Owned descriptors of the engine's wait set.
pub(super) struct Poller {
    pub(super) epoll: OwnedFd,
    pub(super) kick: OwnedFd,
    pub(super) timer: OwnedFd,
    pub(super) armed: Option<Instant>,
    pub(super) want_write: bool,
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller just got this descriptor from the kernel and gives it away here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ok(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Poller {
    pub(super) fn new(socket: RawFd) -> io::Result<Self> {
        // SAFETY: plain system calls without pointers.
        let (epoll, kick, timer) = unsafe {
            (
                owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                owned(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?,
                owned(libc::timerfd_create(
                    libc::CLOCK_MONOTONIC,
                    libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
                ))?,
            )
        };
        let poller = Self {
            epoll,
            kick,
            timer,
            armed: None,
            want_write: false,
        };
        poller.control(libc::EPOLL_CTL_ADD, socket, libc::EPOLLIN)?;
        poller.control(libc::EPOLL_CTL_ADD, poller.kick.as_raw_fd(), libc::EPOLLIN)?;
        poller.control(libc::EPOLL_CTL_ADD, poller.timer.as_raw_fd(), libc::EPOLLIN)?;
        Ok(poller)
    }

    pub(super) fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        events: libc::c_int,
    ) -> io::Result<()> {
        #[allow(clippy::cast_sign_loss)]
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: fd as u64,
        };
        // SAFETY: `event` lives across the call; the kernel copies it.
        ok(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })
    }

    pub(super) fn ready(&self) -> Vec<RawFd> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EPOLL_EVENTS];
        // SAFETY: the array outlives the call and its length is given.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EPOLL_EVENTS as i32,
                0,
            )
        };
        #[allow(clippy::cast_possible_truncation)]
        events[..usize::try_from(count).unwrap_or(0)]
            .iter()
            .map(|event| event.u64 as RawFd)
            .collect()
    }

    /// Read the counter of an eventfd or timerfd, so that it is no longer readable.
    pub(super) fn clear(fd: &OwnedFd) {
        let mut counter = 0u64;
        // SAFETY: reads eight bytes into an eight-byte integer; an error means there was nothing.
        unsafe { libc::read(fd.as_raw_fd(), (&raw mut counter).cast(), 8) };
    }

    pub(super) fn kick(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes from an eight-byte integer; a full counter is awake anyway.
        unsafe { libc::write(self.kick.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Wake at `deadline` or earlier: a wake-up too many is cheaper than a system call per turn.
    pub(super) fn arm(&mut self, deadline: Option<Instant>, now: Instant) {
        let Some(deadline) = deadline else { return };
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        let wait = deadline
            .saturating_duration_since(now)
            .max(Duration::from_nanos(1));
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        // SAFETY: `spec` lives across the call and the old value is not asked for.
        unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                0,
                &raw const spec,
                std::ptr::null_mut(),
            )
        };
        self.armed = Some(deadline);
    }
}
