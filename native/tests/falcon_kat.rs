//! NIST round-3 known answers for verification, when `falcon512-KAT.rsp` or `falcon1024-KAT.rsp` is
//! in the folder `HYPERMESH_FALCON_KAT` or in `tests/vectors`.
use std::{collections::HashMap, env, fs, path::PathBuf};

use _native::falcon::{Degree, Signer, Verifier};

const NONCE_SIZE: usize = 40;

/// The message and the padded signature of NIST's framing:
/// `length || nonce || message || 0x20 + logn || compressed`. `None` where the compressed signature
/// is longer than the padded form allows.
fn unframe(degree: Degree, framed: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (length, rest) = framed.split_first_chunk::<2>().expect("a length");
    let (nonce, rest) = rest.split_at(NONCE_SIZE);
    let at = rest.len() - usize::from(u16::from_be_bytes(*length));
    let (message, signature) = rest.split_at(at);
    let logn = u8::try_from(degree.logn()).expect("9 or 10");
    assert_eq!(signature[0], 0x20 + logn);
    let mut padded = [&[0x30 + logn], nonce, &signature[1..]].concat();
    if padded.len() > degree.signature_size() {
        return None;
    }
    padded.resize(degree.signature_size(), 0);
    Some((message.to_vec(), padded))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).expect("hex"));
    digits
        .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
        .collect()
}

/// How many answers of a file hold; all must.
fn check(degree: Degree, text: &str) -> usize {
    let mut fields = HashMap::new();
    let mut held = 0;
    for (name, value) in text.lines().filter_map(|line| line.split_once(" = ")) {
        fields.insert(name, value);
        if name != "sm" {
            continue;
        }
        let verifier = Verifier::decode(&bytes(fields["pk"])).expect("a key");
        let Some((message, signature)) = unframe(degree, &bytes(value)) else {
            continue;
        };
        assert_eq!(message, bytes(fields["msg"]));
        assert!(
            verifier.accepts(&message, &signature),
            "count {}",
            fields["count"]
        );
        assert!(!verifier.accepts(&message[1..], &signature));
        held += 1;
    }
    held
}

#[test]
fn known_answers_hold_where_they_are_present() {
    let ours = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let folder = env::var_os("HYPERMESH_FALCON_KAT").map_or(ours, PathBuf::from);
    for (degree, name) in [
        (Degree::Falcon512, "falcon512-KAT.rsp"),
        (Degree::Falcon1024, "falcon1024-KAT.rsp"),
    ] {
        if let Ok(text) = fs::read_to_string(folder.join(name)) {
            assert!(check(degree, &text) > 0, "{name} has no answer that fits");
        }
    }
}

#[test]
fn the_framing_of_nist_is_understood() {
    let hex = |data: &[u8]| {
        data.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    for degree in [Degree::Falcon512, Degree::Falcon1024] {
        let signer = Signer::generate(degree).expect("randomness");
        let signature = signer.sign(b"message").expect("randomness");
        let body = [&[signature[0] - 0x10], &signature[1 + NONCE_SIZE..]].concat();
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        let framed = [&length, &signature[1..=NONCE_SIZE], b"message", &body].concat();
        let (public, message) = (hex(signer.public()), hex(b"message"));
        let text = format!(
            "count = 0\nmsg = {message}\npk = {public}\nsm = {}\n",
            hex(&framed)
        );
        assert_eq!(check(degree, &text), 1);
    }
}
