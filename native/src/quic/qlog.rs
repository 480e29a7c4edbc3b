//! Traces of connections for qvis and its like (draft-ietf-quic-qlog-main-schema): one JSON-SEQ
//! file each. They tell whom a node talks to and when, never what: for finding faults only.
use std::{
    fs::OpenOptions,
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use quinn_proto::{QlogConfig, QlogStream};

/// A trace in a file that nobody else can read and that is never written over.
pub(super) fn stream(folder: &Path, name: &str) -> io::Result<Option<QlogStream>> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join(format!("{name}.sqlog")))?;
    let mut config = QlogConfig::default();
    config
        .writer(Box::new(BufWriter::new(file)))
        .title(Some(name.to_owned()));
    Ok(config.into_stream())
}
