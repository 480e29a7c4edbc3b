//! The secrets of every connection, in the NSS key log format that Wireshark reads. Whoever reads
//! the file reads all traffic: off unless asked for, in a file of its owner's only.
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    sync::{Mutex, PoisonError},
};

use rustls::KeyLog;

/// See the module.
pub struct KeyLogFile {
    file: Mutex<File>,
}

impl std::fmt::Debug for KeyLogFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeyLogFile")
    }
}

impl KeyLogFile {
    /// Append to a file, made with mode 0600 if it is not there.
    ///
    /// # Errors
    /// When it cannot be opened, is a link, or can be read by others.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        let status = file.metadata()?;
        // SAFETY: a system call without arguments that cannot fail.
        if !status.is_file() || status.uid() != unsafe { libc::geteuid() } {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the key log is no file of this user's",
            ));
        }
        if status.mode() & 0o077 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the key log can be read by others; run chmod 600",
            ));
        }
        Ok(Self {
            file: Mutex::new(file),
        })
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        for (part, end) in [(client_random, ' '), (secret, '\n')] {
            line.extend(part.iter().map(|byte| format!("{byte:02x}")));
            line.push(end);
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(line.as_bytes()); // a full disk must not end a handshake
    }
}
