//! Every decoder that reads bytes from a wire, fed with arbitrary ones and with damaged good ones.
//!
//! A quick round in `cargo test`; `FUZZ_SECONDS` makes each target go on for that long. A case that
//! ever failed is kept in `tests/corpus` and replayed first.
use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use _native::{
    batch::Batch,
    der::{decode_spki, encode_spki},
    falcon::{Degree, Signer, Verifier},
    frame::{self, Splitter},
    msgpack::Reader,
    transaction::Transaction,
};
use bytes::Bytes;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

const LIMIT: usize = 1 << 16;

/// Run `property` over the corpus, over short and long random strings and over `seed` with bytes
/// changed, until the time is up.
fn fuzz(name: &str, seed: &[u8], property: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for entry in fs::read_dir(folder).expect("the corpus is there") {
        property(&fs::read(entry.expect("readable").path()).expect("readable"));
    }
    property(seed);
    let seconds = env::var("FUZZ_SECONDS").map_or(0, |text| text.parse().expect("seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let damaged = {
        let seed = seed.to_vec();
        let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        (changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
            move |(changes, cut, shorten)| {
                let mut data = seed.clone();
                for (at, byte) in changes
                    .iter()
                    .filter(|_| !data.is_empty())
                    .collect::<Vec<_>>()
                {
                    let at = at.index(data.len());
                    data[at] = *byte;
                }
                if shorten {
                    data.truncate(cut.index(data.len() + 1));
                }
                data
            },
        )
    };
    let bytes = prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..64),
        1 => proptest::collection::vec(any::<u8>(), 0..2_048),
        4 => damaged,
    ];
    loop {
        let mut runner = TestRunner::new(Config {
            cases: 256,
            failure_persistence: None,
            ..Config::default()
        });
        let outcome = runner.run(&bytes, |data| {
            property(&data);
            Ok(())
        });
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
        if Instant::now() >= end {
            return;
        }
    }
}

fn wire(frames: &[&[u8]]) -> Vec<u8> {
    let head = |body: &[u8]| frame::header(7, body.len()).expect("short");
    frames
        .iter()
        .flat_map(|body| [&head(body)[..], body].concat())
        .collect()
}

#[test]
fn frames_come_out_alike_however_the_stream_is_cut() {
    let split = |data: &[u8], step: usize| {
        let (mut splitter, mut frames) = (Splitter::new(LIMIT), Vec::new());
        let fault = data.chunks(step).find_map(|chunk| {
            let chunk = Bytes::copy_from_slice(chunk);
            splitter
                .push(chunk, |kind, body| frames.push((kind, body)))
                .err()
        });
        assert!(fault.is_some() || splitter.pending() <= data.len());
        (frames, fault)
    };
    fuzz("frames", &wire(&[b"one", b"", &[9; 300]]), |data| {
        let whole = split(data, data.len().max(1));
        assert_eq!(split(data, 1), whole);
        assert_eq!(split(data, 7), whole);
    });
}

#[test]
fn a_public_key_that_decodes_has_one_encoding() {
    let signer = Signer::generate(Degree::Falcon512).expect("randomness");
    let algorithm = _native::der::KeyAlgorithm::FalconPadded512;
    let seed = encode_spki(algorithm, signer.public()).expect("right length");
    fuzz("spki", &seed, |data| {
        if let Some((algorithm, raw)) = decode_spki(data) {
            assert_eq!(encode_spki(algorithm, raw).as_deref(), Some(data));
            if let Some(key) = Verifier::decode(raw) {
                assert_eq!(key.encoded(), raw);
            }
        }
    });
}

#[test]
fn tokens_of_msgpack_never_reach_past_the_end() {
    let seed = [&[0x93, 0xc4, 3][..], b"abc", &[0xa2], b"hi", &[0xcd, 1, 0]].concat();
    fuzz("msgpack", &seed, |data| {
        let mut reader = Reader::new(data);
        while !reader.rest().is_empty() {
            let before = reader.rest().len();
            if reader.token().is_err() {
                return;
            }
            assert!(reader.rest().len() < before);
        }
    });
}

#[test]
fn only_the_signature_that_was_made_is_accepted() {
    let signer = Signer::generate(Degree::Falcon512).expect("randomness");
    let verifier = Verifier::decode(signer.public()).expect("a key");
    let signature = signer.sign(b"message").expect("randomness");
    fuzz("signature", &signature, |data| {
        assert_eq!(verifier.accepts(b"message", data), data == signature);
    });
}

#[test]
fn a_batch_that_parses_is_what_its_payloads_make() {
    let seed = Batch::of(&[&b"one"[..], b"two"]).expect("small");
    fuzz("batch", seed.body(), |data| {
        if let Ok(batch) = Batch::parse(data.to_vec()) {
            let payloads: Vec<_> = batch.payloads().map(<[u8]>::to_vec).collect();
            let again = Batch::of(&payloads).expect("it was one");
            assert_eq!((again.body(), again.root()), (data, batch.root()));
        }
    });
}

#[test]
fn a_transaction_decodes_or_is_refused_and_does_nothing_else() {
    fuzz(
        "transaction",
        &[0x96, 1, 0xc4, 0, 0, 0x90, 0xc4, 0, 0xc4, 0],
        |data| {
            if let Ok(transaction) = Transaction::decode(data) {
                assert!(transaction.signed_bytes().len() <= data.len() + 64);
            }
        },
    );
}
