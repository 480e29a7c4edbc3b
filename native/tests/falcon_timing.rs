//! Does the time of signing tell anything about key or message? A test in the manner of dudect
//! (Reparaz, Balasch, Verbauwhede 2017): two classes in random order, Welch's t over what is left
//! when the slowest are cut off. Takes a while and wants a quiet machine: `make soak` runs it.
use std::time::Instant;

use _native::falcon::{Degree, Signer};
use rand_core::{OsRng, RngCore};

const SAMPLES: usize = 20_000;
/// dudect calls a leak proven above 10; the machine's own noise stays below 5.
const T_MAX: f64 = 10.0;
/// The slowest part of all samples is the scheduler's, not the signer's.
const KEPT: f64 = 0.9;

fn welch(classes: &[Vec<f64>; 2]) -> f64 {
    let [first, second] = classes;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let variance = |values: &[f64]| {
        let centre = mean(values);
        values
            .iter()
            .map(|value| (value - centre).powi(2))
            .sum::<f64>()
            / (values.len() - 1) as f64
    };
    let spread = variance(first) / first.len() as f64 + variance(second) / second.len() as f64;
    (mean(first) - mean(second)) / spread.sqrt()
}

/// Welch's t of the two classes that `sign` is told to run.
fn compare(mut sign: impl FnMut(usize)) -> f64 {
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let class = (OsRng.next_u32() & 1) as usize;
        let began = Instant::now();
        sign(class);
        samples.push((began.elapsed().as_secs_f64(), class));
    }
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    samples.truncate((SAMPLES as f64 * KEPT) as usize);
    let mut classes = [Vec::new(), Vec::new()];
    for (took, class) in samples {
        classes[class].push(took);
    }
    welch(&classes)
}

fn random_message() -> [u8; 64] {
    let mut message = [0; 64];
    OsRng.fill_bytes(&mut message);
    message
}

#[test]
#[ignore = "takes a minute and a quiet machine; make soak runs it"]
fn the_time_of_signing_does_not_depend_on_the_message() {
    let signer = Signer::generate(Degree::Falcon512).unwrap();
    let messages: Vec<_> = (0..SAMPLES).map(|_| random_message()).collect();
    let (fixed, mut next) = ([0; 64], messages.iter().cycle());
    let t = compare(|class| {
        let message = next.next().unwrap();
        let chosen = if class == 0 { &fixed } else { message };
        signer.sign(chosen).unwrap();
    });
    println!("fixed against random message: t = {t:.2}");
    assert!(t.abs() < T_MAX, "t = {t:.2}");
}

#[test]
#[ignore = "takes a minute and a quiet machine; make soak runs it"]
fn the_time_of_signing_does_not_depend_on_the_key() {
    let signers = [(); 2].map(|()| Signer::generate(Degree::Falcon512).unwrap());
    let message = random_message();
    let t = compare(|class| {
        signers[class].sign(&message).unwrap();
    });
    println!("one key against another: t = {t:.2}");
    assert!(t.abs() < T_MAX, "t = {t:.2}");
}

#[test]
fn a_leak_would_be_seen() {
    let busy = |rounds: u32| (0..rounds).fold(1u64, |x, _| std::hint::black_box(x.wrapping_mul(3)));
    let t = compare(|class| {
        std::hint::black_box(busy(if class == 0 { 2_000 } else { 4_000 }));
    });
    assert!(t.abs() > T_MAX, "t = {t:.2}");
}
