//! Exceptions of the extension. Each class carries its stable code and the next step as data.
use pyo3::{create_exception, exceptions::PyException, prelude::*, types::PyType};

create_exception!(
    native,
    NativeError,
    PyException,
    "Root of what this room raises."
);
create_exception!(
    native,
    CodecError,
    NativeError,
    "Bytes or a value are not canonical msgpack."
);
create_exception!(
    native,
    KeyInvalid,
    NativeError,
    "Bytes are not a key of this algorithm."
);
create_exception!(
    native,
    SignatureInvalid,
    NativeError,
    "A signature does not fit its message."
);
create_exception!(
    native,
    ProofInvalid,
    NativeError,
    "A Merkle proof does not lead to its root."
);
create_exception!(
    native,
    BatchInvalid,
    NativeError,
    "Bytes are not a batch of payloads."
);
create_exception!(
    native,
    LimitExceeded,
    NativeError,
    "A bound of this room was hit."
);

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let add = |class: Bound<'_, PyType>, code: &str, hint: &str| -> PyResult<()> {
        class.setattr("code", code)?;
        class.setattr("hint", hint)?;
        module.add(&class.name()?.to_string()[..], class)
    };
    add(
        py.get_type::<NativeError>(),
        "HM-N-000",
        "report this with the log around it",
    )?;
    add(
        py.get_type::<CodecError>(),
        "HM-N-001",
        "the sender must use canonical msgpack: arrays, shortest forms, no negative numbers",
    )?;
    add(
        py.get_type::<KeyInvalid>(),
        "HM-N-002",
        "check that the key belongs to the algorithm it is named with",
    )?;
    add(
        py.get_type::<SignatureInvalid>(),
        "HM-N-003",
        "check that the message was signed by this key and was not changed",
    )?;
    add(
        py.get_type::<ProofInvalid>(),
        "HM-N-004",
        "fetch proof and root again from the same node; if it stays, do not trust that node",
    )?;
    add(
        py.get_type::<BatchInvalid>(),
        "HM-N-005",
        "the sender must use the batch format: count, lengths, payloads",
    )?;
    add(
        py.get_type::<LimitExceeded>(),
        "HM-N-006",
        "send less at once; native/limits.py names the bounds",
    )
}
