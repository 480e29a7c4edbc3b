//! Traces of connections for qvis and its like (draft-ietf-quic-qlog-main-schema): one JSON-SEQ
//! file each. They tell whom a node talks to and when, never what: for finding faults only.
use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use quinn_proto::{QlogConfig, QlogStream};

use super::io_error;

/// A trace in a file that nobody else can read and that is never written over. The name is drawn,
/// because process, port and number come again after a restart.
pub(super) fn stream(folder: &Path, role: &str) -> io::Result<Option<QlogStream>> {
    let mut drawn = [0; 8];
    aws_lc_rs::rand::fill(&mut drawn).map_err(io_error)?;
    let name = format!("{:016x}-{role}", u64::from_be_bytes(drawn));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join(format!("{name}.sqlog")))?;
    let mut config = QlogConfig::default();
    config
        .writer(Box::new(BufWriter::new(file)))
        .title(Some(name));
    Ok(config.into_stream())
}
